"""A cluster of 2 to 4 service processes on virtual time: `simulate` lives through one, as its seed says."""

import asyncio
import gc
import hashlib
import logging
import random
import traceback
import uuid
from collections import deque
from collections.abc import Coroutine
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from app.errors import LeaseLost, StoreUnavailable
from app.settings import Settings
from app.store import pausing
from tests.simulation.cluster import clocks, faults, patches
from tests.simulation.cluster.bench import Script
from tests.simulation.cluster.checks import Checks
from tests.simulation.cluster.load import Load
from tests.simulation.cluster.loop import PROCESS, SimulatedLoop
from tests.simulation.cluster.parts import Voice
from tests.simulation.cluster.process import Process
from tests.simulation.cluster.server import Server, Store

LEASE_S: Final = 3.0
#: Invariants are looked at every so many steps; the cluster is given so many seconds to come to rest.
LOOK_EVERY, REST_S = 400, 100.0
#: What clients have asked for before they went, a limit of 0 perhaps, is done so soon.
ASKED_S: Final = 5.0
#: Events kept of a trace.
SHOWN: Final = 100


class SimulationFailed(AssertionError):
    """Something is wrong; the message has the seed, what, and the end of the trace."""


@dataclass(frozen=True)
class Lived:
    """What there was in one simulation."""

    COUNTED: ClassVar = ("steps", "faults", "in_doubt", "takeovers", "runs", "attempts", "events")

    seed: int
    steps: int
    seconds: float
    faults: int
    #: transactions whose answer was lost
    in_doubt: int
    takeovers: int
    runs: int
    attempts: int
    events: int
    #: of the whole trace: the same in each replay
    fingerprint: str


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, folder: Path, store: Store, loop: SimulatedLoop, bug: str | None) -> None:
        self.seed, self.folder, self.loop = seed, folder, loop
        self.bug = bug
        self.dice = random.Random(seed)
        self.clocks = clocks.Clocks(loop)
        self.server = Server(store, loop, self.dice, self.note)
        self.air: list[Voice] = []
        self.words_lost = 0.15
        self.script = Script(self.dice)
        self.checks = Checks(store, loop, self.note, self.fail)
        self.settings = Settings(
            project=folder, home=folder / ".home", database_url="sqlite:///simulated",
            drain_s=1.0, workers=4, run_slots=4, lease_s=LEASE_S,
        )  # fmt: skip
        self.processes: list[Process] = []
        self.faults = 0
        self._pids = 1000
        self._trace: deque[str] = deque(maxlen=SHOWN)
        self._sum = hashlib.sha256()
        self._failed: asyncio.Future[None] = loop.create_future()
        self._is_over = False

    # ---- the trace

    def note(self, text: str) -> None:
        """Put something into the trace."""
        line = f"{self.loop.time():9.3f} {text}"
        self._trace.append(line)
        self._sum.update(line.encode())

    def fail(self, what: str, error: BaseException | None = None) -> None:
        """End the simulation: this is wrong."""
        if self._failed.done() or self._is_over:
            return
        more = "".join(traceback.format_exception(error)) if error is not None else ""
        bug = f" --bug {self.bug}" if self.bug else ""
        self._failed.set_exception(
            SimulationFailed(
                f"seed {self.seed}: {what}\n{more}\nThe last {len(self._trace)} events:\n  "
                + "\n  ".join(self._trace)
                + f"\n\nseed {self.seed}: {what.splitlines()[0]}"
                + f"\nreplay: python -m tests.simulation.cluster --seed {self.seed}{bug}"
            )
        )

    def on_error(self, _loop: Any, context: dict[str, Any]) -> None:
        """What reaches the loop's handler is a fault, but in a process that is dying."""
        process = PROCESS.get()
        task = context.get("task") or context.get("future")
        process = process or getattr(task, "process", None)
        error = context.get("exception")
        if "never retrieved" in context["message"] and isinstance(error, StoreUnavailable | LeaseLost):
            return  # an answer for a client that has gone
        if self._is_over or (process is not None and process.dead) or isinstance(error, SimulationFailed):
            return
        self.note(f"{process}: {context['message']}: {error!r}")
        self.fail(f"{process or 'outside'}: {context['message']}: {error!r}", error)

    # ---- processes

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of the world outside."""
        return asyncio.get_running_loop().create_task(work)

    def pid_started(self, pid: int) -> int | None:
        """Stands in for `/proc`."""
        alive = any(p.pid == pid and not p.dead and not p.gone.is_set() for p in self.processes)
        return pid if alive else None

    async def _keep_up(self, place: int) -> None:
        """A process, and another one when it has ended."""
        host = f"host{place % self.hosts}"
        while True:
            self._pids += 1
            process = self.processes[place] = Process(self, f"n{place}.{self._pids - 1000}", host, self._pids)
            await process.gone.wait()
            await asyncio.sleep(self.dice.uniform(*faults.RESTART_S))

    # ---- the course of things

    async def live(self, steps: int) -> Lived:
        """Faults and load for so many steps, then rest; everything is looked at on the way and at the end."""
        self.loop.set_exception_handler(self.on_error)
        count, self.hosts = self.dice.choice((2, 3, 3, 4)), self.dice.choice((1, 4))
        self.processes = [None] * count  # type: ignore[list-item]
        keepers = [self.spawn(self._keep_up(place)) for place in range(count)]
        await asyncio.sleep(0)
        load = Load(self)
        watching = self.spawn(self._watch())
        acting = [self.spawn(load.go_on()), self.spawn(faults.strike(self))]
        course = self.spawn(self._course(steps, load, acting))
        await asyncio.wait((course, self._failed), return_when=asyncio.FIRST_COMPLETED)
        self._raise_failure()
        await course
        for task in keepers:
            task.cancel()
        await self._stop_all()
        watching.cancel()
        await asyncio.sleep(0.1)
        self.checks.tasks_left()
        self._raise_failure()
        self._is_over = True
        self._failed.cancel()
        return self._lived()

    def _lived(self) -> Lived:
        count = "SELECT count(*), coalesce(sum(recoveries), 0) FROM pipeline_run"
        ((runs, takeovers),) = self.server.store.ask(count)
        return Lived(
            seed=self.seed,
            steps=self.loop.steps,
            seconds=self.loop.time(),
            faults=self.faults,
            in_doubt=self.server.in_doubt,
            takeovers=takeovers,
            runs=runs,
            attempts=self.checks.executions,
            events=self.checks.events,
            fingerprint=self._sum.hexdigest()[:16],
        )

    async def tidy_up(self) -> None:
        """End what is left, however the simulation ended."""
        self._is_over = True
        for process in self.processes:
            process.die()
        for _ in range(100):
            left = [task for task in self.loop.tasks if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.sleep(0.01)

    def _raise_failure(self) -> None:
        if self._failed.done():
            self._failed.result()

    async def _course(self, steps: int, load: Load, acting: list["asyncio.Task[Any]"]) -> None:
        looked = 0
        while self.loop.steps < steps:
            await asyncio.sleep(0.2)
            if self.loop.steps - looked >= LOOK_EVERY:
                looked = self.loop.steps
                self.checks.look()
        for task in acting:
            task.cancel()
        self.note("from here on nothing goes wrong any more")
        self.server.trouble.end()
        self.words_lost, self.script.is_wild = 0.0, False
        for process in self.processes:
            process.go_on()
        await self._rest(load)

    async def _rest(self, load: Load) -> None:
        """With no faults and nothing new, everything ends."""
        await asyncio.sleep(ASKED_S)
        await self._by_somebody(load.lift_limits)
        pause = self.server.ask(
            lambda tx: pausing.pause_all(tx, clock=self.clocks.database), "pause", readonly=False
        )
        await pause
        end = self.loop.time() + REST_S
        while self.loop.time() < end and (load.is_busy or self.checks.live_runs()):
            await asyncio.sleep(0.5)
        self.checks.at_the_end()
        if load.is_busy:
            self.fail("a client never gets an answer")
        self._raise_failure()

    async def _by_somebody(self, act: Any) -> None:
        while not (well := [process for process in self.processes if process.is_well]):
            await asyncio.sleep(0.5)
        await well[0].call(act)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for process in self.processes:
                process.watch()

    async def _stop_all(self) -> None:
        for process in self.processes:
            process.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                for process in self.processes:
                    await process.gone.wait()


class _Heard(logging.Handler):
    """What the service logs goes into the trace; what it logs with a traceback is a fault of ours."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        process = PROCESS.get()
        self._world.note(f"{process}: log: {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None and not (process and process.dead):
            self._world.fail(f"{process}: {record.getMessage()}", record.exc_info[1])


@contextmanager
def _surroundings(world: World, loop: SimulatedLoop) -> Any:
    logger, heard = logging.getLogger("app"), _Heard(world)
    numbers = random.Random(f"ids of {world.seed}")
    with ExitStack() as stack:
        stack.enter_context(clocks.in_force(world.clocks, loop))
        stack.enter_context(
            patches.in_force(world, lambda: uuid.UUID(int=numbers.getrandbits(128), version=4))
        )
        logger.addHandler(heard)
        was, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.removeHandler(heard)
            logger.propagate = was


def simulate(seed: int, *, folder: Path, store: Store, steps: int = 2000, bug: str | None = None) -> Lived:
    """Live through one seed. Raises SimulationFailed with the seed, what is wrong and the last events."""
    store.clear()
    gc.collect()  # what an earlier seed has left ends here, not at some moment of this one
    loop = SimulatedLoop()
    try:
        asyncio.set_event_loop(loop)
        world = World(seed, folder, store, loop, bug)
        with _surroundings(world, loop):
            try:
                return loop.run_until_complete(world.live(steps))
            finally:
                loop.run_until_complete(world.tidy_up())
    finally:
        asyncio.set_event_loop(None)
        loop.tasks.clear()
        loop.close()
