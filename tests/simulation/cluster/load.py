"""Clients of a simulated cluster: they launch, cancel, retry and wait for runs, set limits, and edit triggers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from app.errors import Conflict, LeaseLost, NotFound, PreconditionFailed, RunNotFound, StoreUnavailable
from app.scheduler import limiting
from app.scheduler.engine import Engine
from app.scheduler.launch import LaunchRequest
from app.scheduler.triggers import TriggerDraft
from app.store.idempotency import Idempotency
from tests.simulation.cluster.process import Gone
from tests.simulation.cluster.project import PIPELINES

#: Between two things that a client does, in seconds on average.
EVERY_S: Final = 0.35
TRIES: Final = 5
#: What a client takes for an answer, or for none.
_ANSWERS: Final = (Conflict, NotFound, PreconditionFailed)
_NO_ANSWERS: Final = (StoreUnavailable, LeaseLost, Gone)
_INTERVALS: Final = ("@every 2s", "@every 3s", "@every 7s")


class Load:
    """All clients together."""

    def __init__(self, world: Any) -> None:
        self.world, self.dice, self.checks = world, world.dice, world.checks
        self._number = 0
        self._triggers: list[int] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._acts: tuple[tuple[Callable[[], Coroutine[Any, Any, None]], int], ...] = (
            (self._launch, 10),
            (self._launch_and_wait, 4),
            (self._burst, 1),
            (self._cancel, 4),
            (self._retry, 3),
            (self._limit, 4),
            (self._make_trigger, 1),
            (self._edit_trigger, 3),
        )

    async def go_on(self) -> None:
        """Do one thing after the other; many overlap."""
        acts, weights = [act for act, _ in self._acts], [weight for _, weight in self._acts]
        while True:
            await asyncio.sleep(self.dice.expovariate(1 / EVERY_S))
            (act,) = self.dice.choices(acts, weights)
            self._begin(act)

    def _begin(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(self.world.spawn(self._guarded(act)))

    @property
    def is_busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return not all(task.done() for task in self._tasks)

    async def _guarded(self, act: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        try:
            await act()
        except (*_ANSWERS, *_NO_ANSWERS):
            pass  # what a client may be told
        except Exception as error:
            self.world.fail(f"a client was told {error!r}", error)

    async def _ask(self, ask: Callable[[Engine], Coroutine[Any, Any, Any]], tries: int = TRIES) -> Any:
        """Ask any node, and another one when there is no answer."""
        for left in reversed(range(tries)):
            try:
                return await self.dice.choice(self.world.processes).call(ask)
            except _NO_ANSWERS:
                if not left:
                    raise
                await asyncio.sleep(self.dice.uniform(0.05, 1.0))

    def _request(self, uuid: str | None = None) -> tuple[str, Callable[[Engine], Coroutine[Any, Any, Any]]]:
        self._number += 1
        key, uuid = f"k{self._number}", uuid or self.dice.choice(list(PIPELINES))
        request = LaunchRequest(pipeline_uuid=uuid, priority=self.dice.choice((0, 0, 5)))
        once = Idempotency("simulated", key, uuid)
        return key, lambda engine: engine.launch(request, idempotency=once)

    async def _launch(self) -> int:
        key, ask = self._request()
        if self.dice.random() < 0.3:  # an impatient one sends it twice at once
            self._begin(lambda: self._sent(key, ask))
        return await self._sent(key, ask)

    async def _sent(self, key: str, ask: Callable[[Engine], Coroutine[Any, Any, Any]]) -> int:
        run = await self._ask(ask)
        self.world.note(f"client: {key} is run {run.id} of {run.pipeline_uuid}, {run.status}")
        self.checks.promise(key, run.id)
        return run.id  # type: ignore[no-any-return]

    async def _burst(self) -> None:
        """More at once than a limit lets in, at whatever nodes."""
        for _ in range(5):
            self._begin(lambda: self._sent(*self._request("chain")))

    async def _launch_and_wait(self) -> None:
        run_id = await self._launch()
        self._number += 1
        client = f"w{self._number}"
        self.checks.waited[client] = run_id
        try:
            process = self.dice.choice(self.world.processes)
            over = await process.call(lambda engine: engine.wait(run_id, 600.0), timeout_s=700.0)
            if not over:
                self.world.fail(f"a wait for run {run_id} is given up")
        except RunNotFound:
            self.world.fail(f"run {run_id} was promised, and is not found")
        finally:
            del self.checks.waited[client]

    def _any_run(self) -> int:
        """A run that was promised, a new one rather than an old one."""
        known = list(self.checks.promised.values())
        return known[-1 - min(int(self.dice.expovariate(0.3)), len(known) - 1)] if known else 1

    async def _cancel(self) -> None:
        run_id = self._any_run()
        run = await self._ask(lambda engine: engine.cancel(run_id), tries=1)
        self.world.note(f"client: run {run_id} is to be cancelled; it is {run.status}")

    async def _retry(self) -> None:
        run_id = self._any_run()
        run = await self._ask(lambda engine: engine.retry(run_id), tries=1)
        self.world.note(f"client: run {run_id} is retried as run {run.id}")

    async def _limit(self) -> None:
        scope = self.dice.choice(("global", "pipeline:hooked", "pipeline:fan", "pipeline:parent"))
        cap = self.dice.choice((0, 1, 1, 2, 3, None))
        await self._ask(lambda engine: limiting.put(engine, scope, cap), tries=1)
        self.world.note(f"client: at most {cap} runs at once in {scope}")

    async def lift_limits(self, engine: Engine) -> None:
        """Let everything run that waits."""
        for scope in ("global", "pipeline:hooked", "pipeline:fan", "pipeline:parent"):
            try:
                await limiting.put(engine, scope, None)
            except NotFound:
                continue

    async def _make_trigger(self) -> None:
        self._number += 1
        draft = TriggerDraft(
            pipeline_uuid=self.dice.choice(("chain", "few", "hooked")),
            name=f"t{self._number}",
            schedule_interval=self.dice.choice(_INTERVALS),
            status="active",
            settings={"catch_up": self.dice.choice(("latest", "all", "none"))},
        )
        row, _token = await self._ask(lambda engine: engine.triggers.create(draft), tries=1)
        self._triggers.append(row.id)

    async def _edit_trigger(self) -> None:
        if not self._triggers:
            return
        trigger, dice = self.dice.choice(self._triggers), self.dice
        edits: tuple[Callable[[Engine], Coroutine[Any, Any, Any]], ...] = (
            lambda engine: engine.triggers.pause(trigger),
            lambda engine: engine.triggers.resume(trigger, dice.choice((None, "skip", "latest", "all"))),
            lambda engine: engine.triggers.update(trigger, {"schedule_interval": dice.choice(_INTERVALS)}),
            lambda engine: engine.triggers.update(trigger, {"settings": {"pipeline_run_limit": 1}}),
            lambda engine: engine.triggers.launch(trigger),
        )
        await self._ask(dice.choice(edits), tries=1)
