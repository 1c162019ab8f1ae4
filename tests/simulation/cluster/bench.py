"""Where blocks run in a simulation: nowhere. Each takes its time, ends as the dice say, and is written down.

User code is outside of its process: it goes on while that is paused, until its warden misses it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.executors.base import Ask, BlockCall, BlockError, BlockResult, LogLine, OnAsk
from app.models.pipeline import BlockType
from app.models.states import Outcome
from tests.simulation.cluster.loop import PROCESS

#: The warden of a process that has been silent for so long kills all it runs, in seconds: well within a lease.
SILENCE_S: Final = 0.6
_OVER: Final = ("completed", "failed", "cancelled")


@dataclass(eq=False)
class Attempt:
    """User code at work."""

    call: BlockCall
    slot: "Place"
    began: float
    answer: "asyncio.Future[BlockResult]"
    timer: asyncio.TimerHandle | None = None
    over: bool = False

    @property
    def name(self) -> str:
        """For a trace."""
        call = self.call
        what = f"{call.pipeline_uuid}.{call.block.uuid}" + (f"/{call.hook.uuid}" if call.hook else "")
        return f"{what} (run {call.run_id}, block run {call.block_run_id}, attempt {call.attempt})"


class Bench:
    """An executor with so many places, of one life of a process."""

    def __init__(self, world: Any, size: int) -> None:
        self.world, self.process = world, PROCESS.get()
        self.places = asyncio.Semaphore(size)
        self.running: dict[Attempt, None] = {}
        self.is_cut = False

    async def start(self) -> None:
        """See `Executor.start`."""

    async def stop(self) -> None:
        """See `Executor.stop`."""
        self.cut()

    def cut(self) -> None:
        """See `Executor.cut`."""
        self.is_cut = True
        self.cut_now()

    def cut_now(self) -> None:
        """End what runs; others may come."""
        for attempt in list(self.running):
            self.end(attempt, BlockResult(Outcome.LOST))

    async def acquire(self, python: str | None) -> "Place":
        """See `Executor.acquire`."""
        await self.places.acquire()
        return Place(self)

    def acquire_now(self, python: str | None) -> "Place | None":
        """See `Executor.acquire_now`."""
        if self.places.locked():
            return None
        self.places._value -= 1  # asyncio.Semaphore has no acquire_nowait
        return Place(self)

    def end(self, attempt: Attempt, result: BlockResult) -> None:
        """User code has ended like this."""
        if attempt.over:
            return
        attempt.over = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        self.running.pop(attempt, None)
        self.world.checks.ended(attempt, result, self.process)
        if not attempt.answer.done():
            attempt.answer.set_result(result)


class Place:
    """One place."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._attempt: Attempt | None = None
        self._lent = False

    async def run(
        self, call: BlockCall, on_line: Callable[[LogLine], None], on_ask: OnAsk | None = None
    ) -> BlockResult:
        """See `Slot.run`."""
        bench, world = self.bench, self.bench.world
        loop = asyncio.get_running_loop()
        if bench.is_cut or bench.process.dead:
            return BlockResult(Outcome.LOST)
        attempt = self._attempt = Attempt(call, self, loop.time(), loop.create_future())
        bench.running[attempt] = None
        world.checks.began(attempt, bench.process)
        on_line(LogLine("stdout", "info", f"attempt {call.attempt}"))
        if call.block.uuid == "calls" and call.hook is None and on_ask is not None:
            _ask_for_a_child(attempt, bench, on_ask)
        else:
            takes, result = world.script.play(call)
            attempt.timer = world.loop.outside(takes, bench.end, attempt, result)
        return await attempt.answer

    async def kill(self, outcome: Outcome, reason: str) -> None:
        """See `Slot.kill`."""
        attempt, world = self._attempt, self.bench.world
        if attempt is None or attempt.over:
            return
        result = BlockResult(outcome, evidence={"reason": reason})
        grace = world.dice.choice((0.01, 0.05, 0.5))
        world.loop.outside(grace, self.bench.end, attempt, result)
        await asyncio.wait((asyncio.shield(attempt.answer),))

    def lend(self) -> None:
        """See `Slot.lend`."""
        self._lent = True
        self.bench.places.release()

    async def reclaim(self) -> None:
        """See `Slot.reclaim`."""
        if self._lent:
            await self.bench.places.acquire()
            self._lent = False

    def release(self) -> None:
        """See `Slot.release`."""
        if not self._lent:
            self.bench.places.release()


def _ask_for_a_child(attempt: Attempt, bench: Bench, on_ask: OnAsk) -> None:
    """A block that starts the pipeline `chain` and waits for its end, over questions to the service."""

    def end(outcome: Outcome) -> None:
        bench.world.loop.outside(0.01, bench.end, attempt, _result(outcome))

    def ask(name: str, payload: Mapping[str, Any], then: Callable[[Mapping[str, Any]], None]) -> None:
        def answered(reply: Mapping[str, Any]) -> None:
            if "error" in reply:
                end(Outcome.FAILED)
            elif not attempt.over:
                then(reply["value"])

        on_ask(Ask(name, payload, answered))

    def look(run: Mapping[str, Any]) -> None:
        if run["status"] in _OVER:
            end(Outcome.COMPLETED if run["status"] == "completed" else Outcome.FAILED)
        else:
            ask("wait_for_run", {"run_id": run["id"], "seconds": 5}, look)

    ask("trigger_pipeline", {"pipeline_uuid": "chain", "variables": {}, "wait": True}, look)


def _result(outcome: Outcome, *outputs: Mapping[str, Any], false: bool = False) -> BlockResult:
    error = BlockError("ValueError", "boom", "custom/x.py", 3) if outcome is Outcome.FAILED else None
    return BlockResult(outcome, outputs=outputs, error=error, value_false=false)


class Script:
    """What blocks do: how long they take and how they end, by the dice."""

    def __init__(self, dice: Any) -> None:
        self._dice = dice
        #: whether user code takes its time, fails and gets lost; with the faults that ends, too
        self.is_wild = True

    def play(self, call: BlockCall) -> tuple[float, BlockResult]:
        """Seconds, and the result."""
        dice = self._dice
        takes, luck = dice.choice((0.02, 0.1, 0.4, 1.5, 3.0)), dice.random()
        if not self.is_wild:
            takes, luck = 0.02, 1.0
        if luck < 0.1:
            return takes, _result(Outcome.CRASHED if luck < 0.06 else Outcome.LOST)
        if luck < 0.2:
            return takes, _result(Outcome.FAILED)
        if call.hook is not None:
            is_false = call.hook.kind == "condition" and luck < 0.4
            return takes / 4, _result(Outcome.COMPLETED, false=is_false)
        if call.block.type is BlockType.SENSOR:
            return 0.02, _result(Outcome.COMPLETED, false=luck < 0.6)
        if call.block.uuid == "items":
            return takes, _result(Outcome.COMPLETED, _items(dice.randrange(4)))
        return takes, _result(Outcome.COMPLETED, {"kind": "json", "value": call.block.uuid})


def _items(count: int) -> Mapping[str, Any]:
    values = list(range(count))
    return {"kind": "items", "count": count, "values": values, "meta": [], "names": {}, "after": {}}
