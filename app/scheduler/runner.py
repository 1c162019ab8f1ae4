"""One run, driven: its blocks are tasks, each with its trigger's semaphore and an `asyncio.timeout`.

The task that ran a block goes on itself with the first block this made ready, on the same worker, and tells
the journal both in one unit. Nothing runs before its start is on disk. A run in which every block only waits
for a time is parked: the task ends, and a timer brings it back from its rows.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from app import clock
from app.errors import LeaseLost
from app.events import BlockStarted, Event, LogWritten, RunEnded
from app.executors.base import BlockCall, BlockResult, LogLine, Slot
from app.models.pipeline import Block, Isolation
from app.models.states import BlockStatus, Outcome
from app.scheduler import progress, steps, variables
from app.scheduler.answering import Answering
from app.scheduler.loglines import RunLog, first_pos, lines_of
from app.scheduler.runstate import BlockState, RunState
from app.scheduler.steps import StopWhy
from app.scheduler.tools import Ending, Held, Tools
from app.store.units import Unit, Verdict, Wait

log = logging.getLogger(__name__)
_SLA_LINE = "the run is not over, and its SLA passed at {at:%Y-%m-%d %H:%M:%S} UTC"


class Runner:
    """Drives one run from where its rows stand.

    `first`: what is held already for blocks that started with the run itself.
    """

    def __init__(
        self, tools: Tools, state: RunState, permits: list[asyncio.Semaphore], first: dict[str, Held]
    ) -> None:
        self.tools, self.state, self.permits = tools, state, permits
        self._first = first
        self._id, self._epoch = state.run.id, state.run.epoch
        self._log = RunLog(self._epoch, first_pos(self._epoch, state.log_pos), self._flush_log)
        self._group = asyncio.TaskGroup()
        self._busy: dict[str, Held] = {}
        self._acquiring: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._answering = Answering(state, tools.hooks, self._group, lambda: self._leaving)
        self._chains = 0
        self._over = asyncio.Event()
        self._ending: Ending | None = None
        self._why: StopWhy | None = None
        self._leaving = self._begun = False
        self._sla_told = state.run.sla_passed_at is not None

    async def drive(self) -> Ending:
        """Run until there is nothing left to do here. Raises only what is a fault of the engine."""
        state = self.state
        try:
            state.kwargs, state.datetimes = variables.for_blocks(
                state.pipeline, state.run, env=self.tools.env
            )
            async with self._group:
                if moments := steps.moments(self.state.run):
                    self._group.create_task(self._guard(moments))
                self._begin()
        except* LeaseLost:
            log.warning("run %d: lease lost at epoch %d", self._id, self._epoch)
            self._ending = Ending("lost")
        finally:
            self._over.set()
            self._log.close()
            for timer in self._timers.values():
                timer.cancel()
            for held in self._first.values():
                held.release()
        assert self._ending is not None
        return self._ending

    def stop(self, why: StopWhy) -> None:
        """Stop the run: what runs is killed, what waits is cancelled, then it closes. The first reason stands."""
        if self._why is not None or self._over.is_set():
            if self._ending is not None and self._ending.kind == "parked":
                self._ending = Ending("parked", clock.now())  # it comes back at once, and ends then
            return
        self._why = why
        if self._begun:  # else the beginning sees it
            self._halt(steps.KILL_REASON[why])
            self._end_or_park()

    def leave(self) -> None:
        """Let go of the run as it stands, for another owner: nothing more is written or started."""
        self._leaving = True
        self._ending = self._ending or Ending("handed_over")
        self._stop_acquiring()
        self._over.set()

    def _begin(self) -> None:
        """Start a chain for every block that can go on now; a run that was asked to stop only ends."""
        self._begun = True
        for (
            uuid,
            held,
        ) in self._first.items():  # their starts are on disk: they end as attempts, whatever comes
            attempt = self.state.blocks[uuid].attempt
            self._publish(BlockStarted(run_id=self._id, block_uuid=uuid, attempt=attempt))
            self._spawn(uuid, held)
        first = self._first.keys()
        self._why = self._why or steps.asked_to_stop(self.state.run, clock.now())
        if not self._is_stopping():
            for uuid, block in self.state.blocks.items():
                if uuid not in first and (block.state is BlockStatus.QUEUED or block.is_waiting_sensor):
                    self._wake_at(uuid, block.wake_at)
            for uuid in progress.ready(self.state.pipeline, self.state.statuses):
                self._spawn(uuid)
        self._first = {}
        self._end_or_park()

    def _spawn(self, uuid: str, held: Held | None = None) -> None:
        self._timers.pop(uuid, None)
        self._chains += 1
        self._group.create_task(self._chain(uuid, held), name=f"run {self._id} {uuid}")

    def _wake_at(self, uuid: str, when: datetime | None) -> None:
        """Go on with a block at a time, as long as the run is here; parked runs are woken from outside."""
        left = 0.0 if when is None else (when - clock.now()) / timedelta(seconds=1)
        if left <= 0:
            self._spawn(uuid)
        else:
            self._timers[uuid] = asyncio.get_running_loop().call_later(left, self._wake, uuid)

    def _wake(self, uuid: str) -> None:
        if not self._over.is_set() and not self._is_stopping():
            self._spawn(uuid)

    def _is_stopping(self) -> bool:
        return self._leaving or steps.is_stopping(self.state, self._why)

    async def _chain(self, uuid: str, held: Held | None) -> None:
        """Run a block, then the first block that it makes ready, and so on."""
        started = held is not None
        following: str | None = uuid
        try:
            while following is not None:
                current = following
                held = held or await self._acquire(current)
                if held is None or not (started or await self._start(current)):
                    break
                self._busy[current] = held
                result = await self._attempt(current, held)
                await self._answering.stop(current)
                del self._busy[current]
                following, held = await self._finish(current, result, held)
                started = True
        finally:
            if held is not None:
                held.release()
            self._chains -= 1
        self._end_or_park()

    async def _acquire(self, uuid: str) -> Held | None:
        """A worker and the permits for a block; None when the run was stopped meanwhile."""
        task = asyncio.current_task()
        assert task is not None
        inline = self._is_inline(self.state.blocks[uuid].block)
        executor = self.tools.inline if inline and self.tools.inline else self.tools.workers
        taken: list[asyncio.Semaphore] = []
        slot: Slot | None = None
        self._acquiring.add(task)
        try:
            for permit in self.permits:
                await permit.acquire()
                taken.append(permit)
            slot = await executor.acquire(self.tools.python())
        except asyncio.CancelledError:
            if not self._is_stopping() or task.uncancel():
                raise
        finally:
            self._acquiring.discard(task)
            if slot is None:
                for permit in taken:
                    permit.release()
        if slot is None:
            return None
        held = Held(slot, inline, taken)
        if self._is_stopping():
            held.release()
            return None
        return held

    def _is_inline(self, block: Block) -> bool:
        return block.isolation is Isolation.INLINE and self.tools.inline is not None

    async def _start(self, uuid: str) -> bool:
        """Put the start of an attempt on disk; False when it was refused."""
        block = self.state.blocks[uuid]
        if block.is_waiting_sensor:
            return True  # one attempt is open over all its pokes
        start = steps.start(block, clock.now())
        verdict = await self._submit(Unit(run_id=self._id, epoch=self._epoch, starts=(start,)))
        return self._started(block, verdict)

    def _started(self, block: BlockState, verdict: Verdict) -> bool:
        if verdict.stop is not None:
            steps.take_back(block)
            self.stop(verdict.stop)
            return False
        self._publish(BlockStarted(run_id=self._id, block_uuid=block.block.uuid, attempt=block.attempt))
        return True

    async def _attempt(self, uuid: str, held: Held) -> BlockResult:
        """Run one attempt to its end, whatever that is."""
        if self._is_stopping():  # it was stopped while its start was on the way to disk
            return BlockResult(Outcome.CANCELLED)
        block = self.state.blocks[uuid]
        limit = steps.time_limit(block, clock.now())
        block.wake_at = None
        on_line = partial(self._log.add, uuid, block.id, block.attempt)
        on_ask = self._answering.begin(uuid, held)
        if limit is None:
            return await held.slot.run(self._call(block), on_line, on_ask)
        running = self._group.create_task(held.slot.run(self._call(block), on_line, on_ask))
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(running)
        except TimeoutError:
            on_line(LogLine("system", "error", f"timeout: the block ran longer than {limit:g} s"))
            await held.slot.kill(Outcome.TIMEOUT, f"timeout of {limit:g} s")
            return await running

    @property
    def only_waits(self) -> bool:
        """Whether nothing of the run needs a place: all its blocks wait for runs that they started."""
        return (
            bool(self._busy) and self._chains == len(self._busy) and all(h.lent for h in self._busy.values())
        )

    def _call(self, block: BlockState) -> BlockCall:
        return BlockCall(
            run_id=self._id,
            block_run_id=block.id,
            attempt=block.attempt,
            epoch=self._epoch,
            pipeline_uuid=self.state.pipeline.uuid,
            block=block.block,
            project=self.tools.project,
            artifact_dir=self.state.artifact_dir(block),
            artifacts=self.tools.artifacts,
            inputs=self.state.inputs(block.block),
            kwargs=self.state.kwargs,
            datetimes=self.state.datetimes,
            python=self.tools.python(),
        )

    async def _finish(self, uuid: str, result: BlockResult, held: Held) -> tuple[str | None, Held | None]:
        """Write the end of an attempt and all that follows from it. Returns the block to go on with, and its slot."""
        if self._leaving:
            return None, held  # whoever takes the run over declares this attempt lost
        block, now = self.state.blocks[uuid], clock.now()
        judgement = steps.judge(block, result, self._why, now)
        settles = steps.fall_out(self.state, self._why)
        finishes = [] if judgement.waiting else [steps.finish_row(block, judgement, result)]
        following = None
        if self._is_stopping():
            finishes += steps.drop_sensors(self.state, self._busy)
            self._halt("another block failed")
        else:
            following = self._choose(uuid, held)
        starts = (steps.start(self.state.blocks[following], now),) if following else ()
        if following is None:
            held.release()  # before the commit: the next block need not wait for our disk
        wake = judgement.wake_at
        unit = Unit(
            run_id=self._id,
            epoch=self._epoch,
            finishes=tuple(finishes),
            settles=tuple(settles),
            waits=(Wait(block_run_id=block.id, wake_at=wake),) if wake and block.is_waiting_sensor else (),
            starts=starts,
            close=steps.closing(self.state, self._why),
        )
        self._explain(block, result)
        ended = steps.ended_event(self._id, block, judgement, result)
        try:
            verdict = await self._submit(unit, ended, *steps.settled_events(self.state, settles))
        except BaseException:
            if following is not None:
                held.release()
            raise
        if wake is not None and not self._is_stopping():
            self._wake_at(uuid, wake)
        if following is None:
            return None, None
        return (following if self._started(self.state.blocks[following], verdict) else None), held

    def _choose(self, uuid: str, held: Held) -> str | None:
        """The ready block that keeps this slot; the others get chains of their own."""
        state = self.state
        if state.blocks[uuid].state is BlockStatus.QUEUED and state.blocks[uuid].wake_at is None:
            self._spawn(uuid)  # lost with its worker: again at once, on another
            return None
        ready = progress.made_ready(state.pipeline, state.statuses, uuid)
        following = next((r for r in ready if self._is_inline(state.blocks[r].block) == held.inline), None)
        for other in ready:
            if other != following:
                self._spawn(other)
        return following

    def _halt(self, reason: str) -> None:
        """Wake what waits for a slot, kill what runs."""
        self._stop_acquiring()
        for held in self._busy.values():
            self._group.create_task(held.slot.kill(Outcome.CANCELLED, reason))

    def _stop_acquiring(self) -> None:
        """Wake what waits for a slot; once each, since a second cancel would end the chain itself."""
        while self._acquiring:
            self._acquiring.pop().cancel()

    def _end_or_park(self) -> None:
        """With no chain left: close the run, or park it until its next block wakes."""
        if self._chains or self._over.is_set():
            return
        wake_at = progress.waiting_until({u: b.wake_at for u, b in self.state.blocks.items()})
        if wake_at is not None and not self._is_stopping():
            self._ending = Ending("parked", wake_at)
            self._over.set()
            self._flush_log()
            return
        self._chains += 1  # nobody else may end it meanwhile
        self._group.create_task(self._close())

    async def _close(self) -> None:
        """Close a run that no attempt's end closes: stopped before or between attempts, or with nothing to run."""
        settles = steps.fall_out(self.state, self._why)
        finishes = tuple(steps.drop_sensors(self.state, self._busy))
        close = steps.closing(self.state, self._why)
        if close is None:
            raise RuntimeError(f"run {self._id} cannot go on: {self.state.statuses}")
        unit = Unit(
            run_id=self._id, epoch=self._epoch, finishes=finishes, settles=tuple(settles), close=close
        )
        await self._submit(unit, *steps.settled_events(self.state, settles))

    async def _guard(self, moments: Iterable[tuple[datetime, Literal["sla", "deadline"]]]) -> None:
        """Act when the SLA passes, stop the run when its deadline does; ends with the run."""
        for when, what in moments:
            try:
                async with asyncio.timeout(max(0.0, (when - clock.now()) / timedelta(seconds=1))):
                    await self._over.wait()
                    return
            except TimeoutError:
                pass
            if what == "sla":
                self._sla_told = True
                self._log.add(None, None, None, LogLine("system", "warning", _SLA_LINE.format(at=when)))
                await self.tools.hooks.sla(self._id)
            if what == "deadline" or steps.stops_at_sla(self.state.run):
                self.stop(what)

    async def _submit(self, unit: Unit, *events: Event) -> Verdict:
        """Write a unit together with the log lines gathered so far; then tell whoever listens."""
        chunks, rows = self._log.take()
        verdict = await self.tools.journal.submit(replace(unit, chunks=chunks) if chunks else unit)
        if rows:
            self._publish(LogWritten(run_id=self._id, lines=rows))
        self._publish(*events)
        if unit.close is not None:
            if not self._sla_told and (at := self.state.run.sla_at) is not None and at < clock.now():
                await self.tools.hooks.sla(self._id)  # it ended in the instant after: its end has said so
            self._ending = Ending("closed")
            self._over.set()
            reason = f" ({unit.close.reason})" if unit.close.reason else ""
            log.info("run %d of %s: %s%s", self._id, self.state.run.pipeline_uuid, unit.close.status, reason)
            self._publish(RunEnded(run_id=self._id, status=unit.close.status, reason=unit.close.reason))
        return verdict

    def _flush_log(self) -> None:
        if not self._leaving and self._log.pending:
            self._group.create_task(self._write_log())

    async def _write_log(self) -> None:
        if self._log.pending:  # else another unit has taken the lines along
            await self._submit(Unit(run_id=self._id, epoch=self._epoch))

    def _explain(self, block: BlockState, result: BlockResult) -> None:
        """Put the reason of a failure into the block's log, where people look for it."""
        if result.error is not None:
            text = result.error.traceback or f"{result.error.type}: {result.error.message}"
            for line in lines_of(text):
                self._log.add(block.block.uuid, block.id, block.attempt, line)

    def _publish(self, *events: Event) -> None:
        self.tools.bus.publish(*events)
