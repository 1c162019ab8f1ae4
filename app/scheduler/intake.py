"""Runs on their way in: launches that come together share a transaction, and what waits is admitted.

Whoever claims runs for this node holds `Fleet.claiming`, so that its free slots are counted once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from app import clock
from app.errors import RunwrightError, StoreUnavailable
from app.events import RunCreated, RunEnded
from app.models.pipeline import Pipeline
from app.models.rows import RunRow
from app.models.states import BlockStatus
from app.scheduler.admission import admissible
from app.scheduler.fleet import Fleet
from app.scheduler.runstate import BlockState, RunState
from app.scheduler.tools import Held
from app.store import launch
from app.store.admit import Claimer, admit
from app.store.db import Clash, loads
from app.store.launch import Launched, NewRun

log = logging.getLogger(__name__)

#: Launches in one transaction at most.
BATCH = 50


@dataclass(slots=True, eq=False)
class Launching:
    """A run to be made, with what is held for its first block."""

    new: NewRun
    pipeline: Pipeline
    answer: asyncio.Future[RunRow]
    permits: list[asyncio.Semaphore]
    first: str | None = None
    held: Held | None = None

    def let_go(self) -> None:
        """Give back what was held for a run that does not start now; nothing of it has started."""
        if self.held is not None:
            self.held.release()
        self.held = self.first = None
        self.new = replace(self.new, first=())


class Intake:
    """Creates runs and admits waiting ones, for one node."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: list[Launching] = []
        self._wake = asyncio.Event()
        self._admit_wanted = asyncio.Event()
        #: whether a run may be waiting that this node could take: spares a look after every run that ends
        self.some_wait = True
        self.open = True
        #: called when runs wait that this node has no room for, so that others look
        self.left: Callable[[], None] = lambda: None
        self._news = False

    async def launch(self, new: NewRun, pipeline: Pipeline) -> RunRow:
        """Create a run; it is on disk when this returns, and started if nothing speaks against it."""
        if not self.open:
            raise StoreUnavailable("the service is stopping", hint="ask again when it is back")
        answer: asyncio.Future[RunRow] = asyncio.get_running_loop().create_future()
        permits = self._fleet.permits(new.values.get("pipeline_schedule_id"), pipeline)
        self._waiting.append(Launching(new, pipeline, answer, permits))
        self._wake.set()
        return await asyncio.shield(answer)

    async def serve(self) -> None:
        """Take launches in, batch after batch; the engine owns this task."""
        batch: list[Launching] = []
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(0)  # whoever is ready in this turn of the loop comes along
                self._wake.clear()
                while self._waiting:
                    batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                    async with self._fleet.claiming, self._arriving(batch):
                        await self._create(batch)
        finally:
            for item in batch + self._waiting:  # those that have their answer keep it
                _refuse(item, StoreUnavailable("the service has stopped"))

    @asynccontextmanager
    async def _arriving(self, batch: Sequence[Launching]) -> AsyncIterator[None]:
        """Have runs known while they are made: once on disk, they are driven when that is known here."""
        ids = {item.new.id for item in batch}
        self._fleet.arriving |= ids
        try:
            yield
        finally:
            self._fleet.arriving -= ids

    async def serve_admissions(self) -> None:
        """Admit whenever a slot was freed or a run was left waiting; the engine owns this task."""
        while True:
            await self._admit_wanted.wait()
            self._admit_wanted.clear()
            try:
                await self.admit()
            except StoreUnavailable as error:
                log.warning("admission: %s", error)  # the poll asks again
            except Exception:  # admission serves all runs: one that it stumbles over must not end it
                log.exception("admission failed; it is tried again")

    def want_admission(self) -> None:
        """Look for waiting runs soon."""
        self.some_wait = True
        self._admit_wanted.set()

    def has_news(self) -> None:
        """A run waits since now, or a limit was raised: look soon, and have others look at what is left then."""
        self._news = True
        self.want_admission()

    def freed(self) -> None:
        """A run slot is free."""
        if self.some_wait:
            self._admit_wanted.set()

    async def _create(self, batch: Sequence[Launching]) -> None:
        for item in batch:
            await self._hold_first(item)
        claimer = Claimer(self._fleet.node_id, self._fleet.free if self.open else 0, admissible)
        try:
            made = await self._fleet.db.write(
                launch.launch, [item.new for item in batch], claimer, now=clock.now()
            )
        except Exception as error:  # belongs to one caller; the intake serves all of them
            for item in batch:
                item.let_go()
            if len(batch) == 1 or isinstance(error, StoreUnavailable):
                for item in batch:
                    _refuse(item, error)
                return
            for item in batch:
                await self._create([item])
            return
        for item, launched in zip(batch, made, strict=True):
            self._created(item, launched)
        ours = {item.new.id for item in batch}
        for run_id in claimer.taken:
            if run_id not in ours:
                self._fleet.wake(run_id)

    async def _hold_first(self, item: Launching) -> None:
        """Take a free worker for the first block, so that it can start with the run itself."""
        roots = (
            b
            for b in item.new.blocks
            if b.status is BlockStatus.INITIAL and item.pipeline.starts_plainly(b.uuid)
        )
        first = next((b for b in roots if _has_no_open_upstream(item, b.uuid)), None)
        if first is None or item.new.ended:
            return
        item.held = await self._fleet.hold(item.pipeline.by_uuid[first.uuid].isolation, item.permits)
        if item.held is not None:
            item.first = first.uuid
            item.new = replace(item.new, first=(first.id,))

    def _created(self, item: Launching, launched: Launched) -> None:
        run = launched.run
        if launched.created:
            self._fleet.tools.bus.publish(
                RunCreated(run_id=run.id, pipeline_uuid=run.pipeline_uuid, cause=run.cause)
            )
        for old in launched.replaced:
            self._replaced(old)
        if launched.created and launched.claimed:
            held = {item.first: item.held} if item.first and item.held else {}
            self._fleet.begin(_state(item, run), item.permits, held)
        else:
            item.let_go()
            self._after_waiting(launched)
        if not item.answer.done():
            item.answer.set_result(run)

    def _replaced(self, old: RunRow) -> None:
        """An older run made room for a new one: it is over if it only waited, else its owner stops it."""
        if old.completed_at is not None:
            self._fleet.tools.bus.publish(
                RunEnded(run_id=old.id, status=old.status, reason=old.status_reason)
            )
        elif self._fleet.knows(old.id):
            self._fleet.cancel(old.id)

    def _after_waiting(self, launched: Launched) -> None:
        run = launched.run
        if run.owner == self._fleet.node_id and launched.created:
            self._fleet.wake(run.id)  # admitted in the same transaction, after others
        elif run.started_at is None and run.completed_at is None:
            self.has_news()

    async def admit(self) -> list[RunRow]:
        """Claim waiting runs as far as limits and free slots allow."""
        news, self._news = self._news, False
        async with self._fleet.claiming:
            free = self._fleet.free if self.open else 0
            if not free:
                if news:
                    self.left()
                return []
            claimer = Claimer(self._fleet.node_id, free, admissible)
            admitted = await self._fleet.db.write(admit, claimer, now=clock.now())
            self.some_wait = claimer.left > 0
            if news and self.some_wait:
                self.left()
            for run in admitted:
                self._fleet.wake(run.id)
            return admitted


def _has_no_open_upstream(item: Launching, uuid: str) -> bool:
    done = {b.uuid for b in item.new.blocks if b.status is not BlockStatus.INITIAL}
    return all(upstream in done for upstream in item.pipeline.by_uuid[uuid].upstream)


def _refuse(item: Launching, error: Exception) -> None:
    if not isinstance(error, RunwrightError | Clash):  # a clash is an answer: somebody was faster
        log.error("launch of run %d failed", item.new.id, exc_info=error)
    if not item.answer.done():
        item.answer.set_exception(error)


def _state(item: Launching, run: RunRow) -> RunState:
    """The state of a run that was made this instant, without reading it back."""
    now = run.created_at
    blocks = {}
    for new in item.new.blocks:
        started = new.uuid == item.first
        blocks[new.uuid] = BlockState(
            id=new.id,
            block=item.pipeline.by_uuid[new.uuid],
            state=BlockStatus.RUNNING if started else new.status,
            attempt=int(started),
            tries=int(started),
            started_at=now if started else None,
            outputs=_outputs(new.outputs),
            carried=new.carried_from is not None,
        )
    return RunState(run=run, pipeline=item.pipeline, blocks=blocks)


def _outputs(text: str | None) -> Sequence[dict[str, object]]:
    return loads(text) if text else ()
