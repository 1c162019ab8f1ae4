"""One service process of a simulation: lives of an engine that can be killed, paused, cut off, or stopped in peace."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from datetime import timedelta
from typing import Any

from app.errors import LeaseLost, StoreUnavailable
from app.executors.base import Executor
from app.pipelines.catalogue import Catalogue
from app.scheduler import catchup
from app.scheduler.engine import Engine
from app.scheduler.lives import Lives, living
from tests.simulation.cluster.bench import SILENCE_S, Bench
from tests.simulation.cluster.loop import PROCESS
from tests.simulation.cluster.parts import KEEPER, NoWait

#: A fenced life has so many seconds to clear up; a killed process as many turns for its tasks to be gone.
CLEARS_UP_S, REAPED = 20.0, 200


class Gone(Exception):
    """The process was not there, or did not live to answer."""


class Process:
    """A pid on a host. `engine` is the life that answers now."""

    def __init__(self, world: Any, name: str, host: str, pid: int) -> None:
        self.world, self.name, self.host, self.pid = world, name, host, pid
        self.dice, self.server, self.air = world.dice, world.server, world.air
        self.held: list[asyncio.Handle] | None = None
        self.dead = False
        self.anchor: Any = None
        self.host_is_off = timedelta(seconds=world.dice.choice((0, 0, -3600, 86_400)))
        self.engine: Engine | None = None
        self._benches: list[Bench] = []
        self._lives_since: dict[Any, float | None] = {}
        self._stopping = asyncio.Event()
        self._pauses = 0
        self.gone = asyncio.Event()
        self._task = self.spawn(self._main())
        self._task.add_done_callback(self._has_ended)

    def __repr__(self) -> str:
        return self.name

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of this process."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def _main(self) -> None:
        world = self.world
        catalogue = Catalogue(world.folder, {}, catchup.judge)
        first = Engine(world.settings, catalogue, make_executors=self._make_executors)
        lives = Lives(first, self._is_up)
        async with living(lives):
            await self._stopping.wait()

    def _make_executors(self, node_id: str, dead: Sequence[str]) -> tuple[Executor, Executor | None]:
        self.world.note(f"{self}: is node {node_id[:8]}")
        bench = Bench(self.world, self.world.settings.workers)
        self._benches.append(bench)
        return bench, None

    def _is_up(self, engine: Engine) -> None:
        self.engine = engine
        self.world.note(f"{self}: node {engine.node_id[:8]} is up")

    def _has_ended(self, task: "asyncio.Task[Any]") -> None:
        self.gone.set()
        self.engine = None
        if not self.dead and not task.cancelled() and (error := task.exception()) is not None:
            if not _is_weather(error):
                self.world.fail(f"{self} ended with {error!r}", error)
            self.world.note(f"{self}: did not come up")

    @property
    def is_well(self) -> bool:
        """Whether it answers."""
        return not self.dead and self.held is None and self.engine is not None and self.engine.ready

    async def call(self, ask: Callable[[Engine], Coroutine[Any, Any, Any]], timeout_s: float = 15.0) -> Any:
        """Have the process do something for a client. Raises Gone, and what it answers with."""
        if self.dead or self.engine is None:
            raise Gone
        task = self.spawn(ask(self.engine))
        gone = asyncio.ensure_future(self.gone.wait())
        await asyncio.wait((task, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not task.done() or task.cancelled():
            task.cancel()
            raise Gone
        return task.result()

    # ---- what may happen to it

    def kill(self) -> None:
        """End it as by SIGKILL: nothing more is written, all it runs dies with it."""
        self.world.note(f"{self}: is killed")
        self.die()
        self.world.spawn(self._reap())

    def die(self) -> None:
        """Do nothing more, and let its tasks end."""
        self.dead = True
        self.air[:] = [voice for voice in self.air if voice._process is not self]
        for bench in self._benches:
            bench.cut()
        self._release(False)

    async def _reap(self) -> None:
        """The tasks of the dead unwind without effect: whatever they ask of the database is cancelled, too."""
        loop = self.world.loop
        for _ in range(REAPED):
            mine = [task for task in loop.tasks if task.process is self and not task.done()]
            if not mine:
                self.gone.set()
                return
            for task in mine:
                task.cancel()
            await asyncio.sleep(0.01)
        self.world.fail(f"{self} was killed, and does not die: {mine[:3]}")

    def pause(self, seconds: float) -> None:
        """Stop it as by SIGSTOP. What it runs dies soon: its warden misses it."""
        self.world.note(f"{self}: is paused for {seconds:.1f} s")
        self.held = []
        self._pauses += 1
        self.world.loop.outside(SILENCE_S, self._is_missed, self._pauses)
        self.world.loop.outside(seconds, self.go_on)

    def _is_missed(self, pause: int) -> None:
        if self.held is not None and pause == self._pauses:
            for bench in self._benches:
                bench.cut_now()

    def go_on(self) -> None:
        """As by SIGCONT: its threads go on in any order."""
        if self.held is not None:
            self.world.note(f"{self}: goes on")
            self._release(self.dice.random() < 0.5)

    def _release(self, keeper_first: bool) -> None:
        held, self.held = self.held or [], None
        held.sort(key=lambda handle: handle._context.get(KEEPER) is not keeper_first)  # type: ignore[attr-defined]
        self.world.loop.go_on(held)

    def stop(self) -> None:
        """End it in peace, as by SIGTERM."""
        self.world.note(f"{self}: is stopped")
        self._stopping.set()

    # ---- its lives, told by their memberships

    def life_begins(self, membership: Any) -> NoWait:
        """A life of this process has begun."""
        self._lives_since[membership] = None
        return NoWait()

    def life_ended(self, membership: Any) -> None:
        """It has cleared up."""
        self._lives_since.pop(membership, None)

    def watch(self) -> None:
        """Fail for a life that was fenced and does not clear up."""
        if self.dead or self.held is not None:
            return
        now = self.world.loop.time()
        for membership, since in list(self._lives_since.items()):
            if membership.lost is None:
                continue
            if since is None:
                self._lives_since[membership] = now
            elif now - since > CLEARS_UP_S:
                self.world.fail(f"{self}: node {membership.me.id[:8]} is fenced and does not clear up")


def _is_weather(error: BaseException) -> bool:
    """Whether a process may end like this: the database was away when it started."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_weather(one) for one in error.exceptions)
    return isinstance(error, StoreUnavailable | LeaseLost)
