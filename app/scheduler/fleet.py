"""The runs that this node drives: each has a task under a supervisor, or is parked."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from typing import Any
from weakref import WeakValueDictionary

from app import clock
from app.errors import StoreUnavailable
from app.events import RunEnded, RunStarted
from app.models.pipeline import Isolation, Pipeline
from app.models.rows import RunRow
from app.models.states import BlockStatus, RunStatus
from app.scheduler.parking import Parking
from app.scheduler.runner import Runner
from app.scheduler.runstate import RunState, of_rows
from app.scheduler.sla import Watch
from app.scheduler.steps import wake_for
from app.scheduler.tools import Ending, Held, Tools
from app.store import ownership, runs
from app.store.db import Database
from app.store.runs import Resumed

log = logging.getLogger(__name__)

ABORTED = "internal_error"
ABORT_TRIES_S = (0.2, 1.0, 5.0)
#: between two tries to read a run that is to go on
AGAIN_S = 0.5


class Fleet:
    """Owns the run tasks. `freed` is called whenever a run slot becomes free."""

    def __init__(
        self,
        tools: Tools,
        db: Database,
        *,
        node_id: str,
        run_slots: int,
        block_slots: int,
        group: asyncio.TaskGroup,
    ) -> None:
        self.tools, self.db, self.node_id = tools, db, node_id
        self.active: dict[int, Runner] = {}
        #: runs whose launch is being written: on disk perhaps, and nobody has said so yet
        self.arriving: set[int] = set()
        self.parking = Parking(self.wake)
        self.freed: Callable[[], None] = lambda: None
        self.leaving = False
        #: held from counting what is `free` until what was claimed is woken
        self.claiming = asyncio.Lock()
        self.sla = Watch(db, tools.bus)
        tools.hooks.sla = self.sla.of_run
        self._run_slots, self._block_slots = run_slots, block_slots
        self._group = group
        self._context = copy_context()  # a run is the engine's, also when a caller from outside set it going
        self._loading: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._semaphores: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    @property
    def free(self) -> int:
        """Run slots left. A run that only waits for runs it started takes none; a node that leaves has none."""
        if self.leaving:
            return 0
        taken = sum(1 for runner in self.active.values() if not runner.only_waits)
        return max(0, self._run_slots - taken - len(self._loading))

    def permits(self, schedule_id: int | None, pipeline: Pipeline) -> list[asyncio.Semaphore]:
        """What a block of such a run must hold: its trigger's semaphore, and its run's own block limit."""
        found = []
        if schedule_id is not None:
            semaphore = self._semaphores.get(schedule_id) or asyncio.Semaphore(self._block_slots)
            self._semaphores[schedule_id] = semaphore
            found.append(semaphore)
        if pipeline.limits.block_run_limit is not None:  # 0: no block may start
            found.append(asyncio.Semaphore(pipeline.limits.block_run_limit))
        return found

    async def hold(self, block_isolation: Isolation, permits: list[asyncio.Semaphore]) -> Held | None:
        """A slot and permits that are free this instant, or None."""
        inline = block_isolation is Isolation.INLINE and self.tools.inline is not None
        executor = self.tools.inline if inline and self.tools.inline else self.tools.workers
        if any(permit.locked() for permit in permits):
            return None
        slot = executor.acquire_now(self.tools.python())
        if slot is None:
            return None
        for permit in permits:
            await permit.acquire()  # not locked: returns without waiting
        return Held(slot, inline, list(permits))

    def begin(self, state: RunState, permits: list[asyncio.Semaphore], first: dict[str, Held]) -> None:
        """Drive a run that this node owns; nothing comes of it when it is driven already, or the node is leaving."""
        if self.leaving or state.run.id in self.active:
            for held in first.values():
                held.release()
            return
        runner = Runner(self.tools, state, permits, first)
        self.active[state.run.id] = runner
        self.tools.bus.publish(RunStarted(run_id=state.run.id, epoch=state.run.epoch))
        self._spawn(self._supervise(runner), f"run {state.run.id}")

    def wake(self, run_id: int) -> None:
        """Go on with an owned run from its rows, unless it is being driven already."""
        if run_id in self.active or run_id in self._loading or self.leaving:
            return
        self.parking.take(run_id)
        self._loading.add(run_id)
        self._spawn(self._resume(run_id), f"resume {run_id}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._group.create_task(work, name=name, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resume(self, run_id: int) -> None:
        try:
            resumed = await self._load_when_there(run_id)
            if resumed is not None and self._is_mine(resumed.run):
                await self._go_on(resumed)
        except Exception:  # whatever is wrong with reading one run must not stop the others
            log.exception("run %d: cannot be read; it is looked for again", run_id)
        finally:
            self._loading.discard(run_id)

    async def _load_when_there(self, run_id: int) -> Resumed | None:
        """The rows of a run, as soon as the database answers; None when this node leaves first."""
        told = False
        while not self.leaving:
            try:
                return await self._load(run_id)
            except StoreUnavailable:
                if not told:
                    log.warning("run %d: cannot be read now; trying again", run_id)
                told = True
                await asyncio.sleep(AGAIN_S)
        return None

    async def _load(self, run_id: int) -> Resumed | None:
        """The rows of a run. What was open of it and is not running here is lost, and tried again."""
        resumed = await self.db.read(runs.load, run_id)
        if resumed is None or run_id in self.active or not _has_lost_something(resumed):
            return resumed
        await self.db.write(ownership.retake, run_id, self.node_id, resumed.run.epoch, now=clock.now())
        return await self.db.read(runs.load, run_id)

    async def _go_on(self, resumed: Resumed) -> None:
        try:
            state = of_rows(resumed)
        except Exception:  # rows that this program cannot understand: that run's end, not the service's
            log.exception("run %d: its rows make no sense", resumed.run.id)
            await self._abort(resumed.run)
            return
        self.begin(state, self.permits(resumed.run.pipeline_schedule_id, state.pipeline), {})

    def _is_mine(self, run: RunRow) -> bool:
        return run.status is RunStatus.RUNNING and run.owner == self.node_id

    def cancel(self, run_id: int) -> None:
        """Stop an owned run whose cancel is on record."""
        if runner := self.active.get(run_id):
            runner.stop("cancel")
        else:
            self.wake(run_id)

    def knows(self, run_id: int) -> bool:
        """Whether a run is driven, parked or on its way here."""
        here = run_id in self.active or run_id in self._loading or run_id in self.parking
        return here or run_id in self.arriving

    async def _supervise(self, runner: Runner) -> None:
        """However a run's task ends, the run does not hang: parked, closed, or ended with `internal_error`."""
        run = runner.state.run
        try:
            ending = await runner.drive()
        except Exception:  # the one blanket catch: whatever is wrong with one run must not stop the others
            log.exception("run %d: the engine failed on it", run.id)
            ending = await self._abort(run)
        finally:
            self.active.pop(run.id, None)
        if ending.kind == "parked" and ending.wake_at is not None:
            self.parking.park(run.id, wake_for(run, ending.wake_at))
        self.freed()

    async def _abort(self, run: RunRow) -> Ending:
        for delay in (*ABORT_TRIES_S, None):
            try:
                mine = await self.db.write(
                    ownership.abort, run.id, self.node_id, run.epoch, reason=ABORTED, now=clock.now()
                )
            except StoreUnavailable:
                if delay is not None:
                    await asyncio.sleep(delay)
                continue
            if mine:
                self.tools.bus.publish(RunEnded(run_id=run.id, status=RunStatus.FAILED, reason=ABORTED))
            return Ending("closed")
        return Ending("lost")

    async def left_children(self, run_id: int, uuid: str) -> Mapping[str, tuple[int, str]]:
        """What the completed children of a dynamic block's child block left in a run."""
        return await self.db.read(runs.left_by_children, run_id, uuid)

    def leave(self) -> None:
        """Let go of every run as it stands."""
        self.leaving = True
        self.parking.close()
        for runner in list(self.active.values()):
            runner.leave()

    def close(self) -> None:
        """End what is still on its way here: it waits for a database that does not answer."""
        for task in list(self._tasks):
            task.cancel()


def _has_lost_something(resumed: Resumed) -> bool:
    """Whether an attempt is open that nobody runs: all but that of a sensor between two pokes."""
    return resumed.run.status is RunStatus.RUNNING and any(
        block.status is BlockStatus.RUNNING and block.wake_at is None for block in resumed.blocks
    )
