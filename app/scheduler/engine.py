"""The engine: one node of the service. The doors talk to it, everything else is behind it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app import clock
from app.errors import Conflict, RunNotFound
from app.events import Bus, RunEnded
from app.executors.base import Executor
from app.models.rows import RunRow, ScheduleRow
from app.models.states import RUN_TERMINAL
from app.pipelines.catalogue import Catalogue
from app.scheduler import launch as launching
from app.scheduler import retry as retrying
from app.scheduler.borrow import borrowed
from app.scheduler.fleet import Fleet
from app.scheduler.intake import Intake
from app.scheduler.launch import LaunchRequest
from app.scheduler.membership import Membership
from app.scheduler.passes import Passes
from app.scheduler.recovery import Recovery
from app.scheduler.requests import Requests
from app.scheduler.secrets import Secrets
from app.scheduler.timers import Timers, guarded
from app.scheduler.tools import Hooks, Tools
from app.scheduler.triggers import Triggers
from app.scheduler.vitals import vitals
from app.scheduler.wakeups import CANCEL, until_over, wake_ups
from app.settings import Settings
from app.store import migrate, nodes, ownership, runs
from app.store.db import Clash, Database
from app.store.idempotency import Idempotency
from app.store.ids import Ids
from app.store.journal import Journal
from app.store.opening import backend_for, open_database, voice_of

log = logging.getLogger(__name__)

POLL_S = 1.0
#: After a tick the next comes no sooner.
AGAIN = timedelta(milliseconds=50)
RECOVER_S = 3.0
FORGET_S = 900.0
#: How long a stop waits for what is on its way to disk, and for a database that did not answer before.
JOURNAL_S, AWAY_S = 3.0, 1.0


MakeExecutors = Callable[[str, Sequence[str]], tuple[Executor, Executor | None]]


class Engine:
    """One life of a node. Make it, then use it inside `async with running(engine)`.

    It ends when its lease is lost (`over`); `successor()` is the next one of the same process.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        make_executors: MakeExecutors,
        scheduling: bool = True,
        borrow: Settings | None = None,
        former: Sequence[str] = (),
    ) -> None:
        """`scheduling=False`: run only what is launched here. `borrow`: a service whose outputs may be read.

        `former`: identities of this process before, whose code is dead.

        `make_executors(node_id, dead_node_ids)` gives the executor for workers and, if allowed, the inline one.
        """
        self.settings, self.catalogue = settings, catalogue
        self.db: Database = open_database(settings.store_url)
        self.secrets = Secrets(self.db, settings, borrow)
        self.bus = Bus()
        self.ready = False
        self.first_start = False  # the database is this project's since this start
        #: set once the service stops: whoever holds a stream open lets go
        self.closing = False
        self._hurried = asyncio.Event()
        self.member = Membership(self.db, settings, former=former)
        self._make_executors = make_executors
        self._scheduling, self._borrow = scheduling, borrow
        self._run_ids, self._block_ids = Ids(self.db, "pipeline_run"), Ids(self.db, "block_run")
        self._timers = Timers()
        self._executors: list[Executor] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def node_id(self) -> str:
        """This life's identity in the database."""
        return self.member.me.id

    @property
    def over(self) -> asyncio.Event:
        """Set when this life is to end: its lease is lost, or somebody set it."""
        return self.member.over

    @property
    def is_lost(self) -> bool:
        """Whether the lease is lost: nothing may be changed in this life's name."""
        return self.member.lost is not None

    def successor(self) -> "Engine":
        """The next life, for when this one has ended."""
        return Engine(
            self.settings,
            self.catalogue,
            make_executors=self._make_executors,
            scheduling=self._scheduling,
            borrow=self._borrow,
            former=self.member.heritage,
        )

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Open the database, become a node, recover what a dead one left, start ticking."""
        settings = self.settings
        self.member.at_fence(self._shut)
        if not self.member.former:
            # Off the loop: alembic is synchronous, and on Postgres runs a loop of its own.
            await asyncio.to_thread(migrate.upgrade, settings.store_url)
        await self.db.open()
        await asyncio.to_thread(self.catalogue.refresh)
        self.first_start = await self.db.write(nodes.bind_project, self.catalogue.project.uuid)
        dead = await self.member.join(group)
        workers, inline = self._make_executors(self.node_id, dead)
        self._executors = [executor for executor in (workers, inline) if executor is not None]
        for executor in self._executors:
            await executor.start()
            self.member.at_fence(executor.cut)
        self._journal = Journal(backend_for(self.db, self.node_id))
        tools = self._tools(workers, inline)
        self._build(tools, group)
        self._journal_task = group.create_task(self._journal.run(), name="journal")
        self._tasks = [
            group.create_task(self.intake.serve(), name="intake"),
            group.create_task(self.intake.serve_admissions(), name="admission"),
        ]
        self.member.at_fence(self._journal.refuse)
        self.member.require()
        await self.passes.recover()  # first: what a dead process left has waited long enough
        if self._scheduling:
            await self.passes.sync(force=True)
        if self._scheduling:
            self._start_timers()
            await self._tick()
        self.ready = not self.is_lost

    def _tools(self, workers: Executor, inline: Executor | None) -> Tools:
        settings = self.settings
        return Tools(
            journal=self._journal,
            bus=self.bus,
            workers=workers,
            inline=inline,
            project=settings.project,
            artifacts=settings.artifacts,
            python=lambda: settings.python or self.catalogue.project.python,
            env=settings.env,
            hooks=Hooks(
                answer=self._requests().answer,
                cancel=self.cancel,
                block_ids=self._block_ids.take,
                may_act=self.member.may_act,
            ),
        )

    def _requests(self) -> Requests:
        return Requests(
            self.db,
            self.catalogue,
            self.launch,
            self.wait,
            lambda uuid, name: self.triggers.named(uuid, name),
            self.secrets.value,
            self.settings.artifacts,
        )

    def _build(self, tools: Tools, group: asyncio.TaskGroup) -> None:
        settings = self.settings
        self.fleet = Fleet(
            tools,
            self.db,
            node_id=self.node_id,
            run_slots=settings.run_slots,
            block_slots=settings.workers,
            group=group,
        )
        self.intake = Intake(self.fleet)
        self.member.at_fence(self._shut)
        self.fleet.freed = tools.hooks.freed = self.intake.freed
        tools.hooks.left_children = self.fleet.left_children
        self.passes = Passes(
            db=self.db,
            catalogue=self.catalogue,
            settings=settings,
            me=self.member.me,
            fleet=self.fleet,
            intake=self.intake,
            recovery=Recovery(self.db, self.member.me, self.fleet, self.member.judges),
            run_ids=self._run_ids,
            block_ids=self._block_ids,
            schedule_ids=Ids(self.db, "pipeline_schedule", size=1),
        )
        self.triggers = Triggers(
            db=self.db, catalogue=self.catalogue, node_id=self.node_id, launch=self.launch
        )
        make, tick = voice_of(self.db, self.node_id), self._tick if self._scheduling else None
        self.wakeups = wake_ups(make, self.fleet, self.intake, self.passes, self.triggers, tick)
        self.wakeups.start(group)

    def _start_timers(self) -> None:
        timers = self._timers
        timers.every(1.0, "tick", guarded("tick", self._tick))
        timers.every(POLL_S, "poll", guarded("poll", self.passes.poll))
        timers.every(1.0, "sync", guarded("sync", self.passes.sync))
        timers.every(RECOVER_S, "recover", guarded("recover", self.passes.recover), jitter_s=1)
        timers.every(FORGET_S, "forget", guarded("forget", self.passes.forget), jitter_s=60)
        timers.start()

    async def _tick(self) -> None:
        if self.settings.paused:
            return
        next_due = await self.passes.tick()
        now = clock.now()
        if next_due is not None and next_due < now + timedelta(seconds=1.5):
            # It may have come due since the tick looked; the pause is for one that no tick can move.
            self._timers.at(max(next_due, now + AGAIN), "due", guarded("tick", self._tick))

    async def launch(
        self,
        request: LaunchRequest,
        *,
        schedule: ScheduleRow | None = None,
        carried: launching.Carried | None = None,
        extra: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
    ) -> RunRow:
        """Create a run now, and start it if nothing speaks against it.

        `schedule` is the trigger it belongs to, `carried` what blocks have left that need not run again, `extra`
        more columns. Raises PipelineNotFound, PipelineInvalid, UnknownBlock, InvalidInput, StoreUnavailable.
        """
        pipeline = self.catalogue.get(request.pipeline_uuid)
        launching.check(request, pipeline)
        if request.block_uuid is not None and carried is None and not request.with_upstream:
            upstream = pipeline.by_uuid[request.block_uuid].upstream
            carried = await self.left_outputs(pipeline.uuid, upstream)
            launching.missing(pipeline, request, carried)
        new, part = await launching.new_run(
            pipeline,
            request,
            run_ids=self._run_ids,
            block_ids=self._block_ids,
            now=clock.now(),
            carried=carried,
            schedule=schedule,
            extra=extra,
            week_start=self.catalogue.project.week_start,
        )
        return await self.intake.launch(replace(new, request=idempotency), part)

    async def retry(
        self,
        run_id: int,
        *,
        source: str = "failed",
        variables: Mapping[str, Any] | None = None,
        changed: retrying.Changed | None = None,
        idempotency: Idempotency | None = None,
    ) -> RunRow:
        """Run a finished run again as a new one, from what failed, from the start, or from a block.

        `variables` overwrite those of the old run. Raises RunNotFound, Conflict while it or another retry of it is
        live, CodeChanged unless `changed` says what to do, UnknownBlock, and what :meth:`launch` raises.
        """
        plan = await retrying.plan(
            self.db, self.catalogue, run_id, source=source, variables=variables, changed=changed
        )
        try:
            return await self.launch(
                plan.request,
                schedule=plan.schedule,
                carried=plan.carried,
                extra=plan.extra,
                idempotency=idempotency,
            )
        except Clash as error:
            raise Conflict(
                f"run {run_id} is being retried already", hint="wait for that run, or cancel it"
            ) from error

    async def left_outputs(self, pipeline_uuid: str, blocks: tuple[str, ...]) -> launching.Carried:
        """What blocks of a pipeline left in its newest completed run here."""
        found = await self.db.read(runs.left_outputs, pipeline_uuid, blocks)
        if self._borrow is None or len(found) == len(blocks):
            return found
        return await borrowed(self._borrow, pipeline_uuid, blocks) or found

    async def cancel(self, run_id: int) -> RunRow:
        """Ask a run to stop; a finished one is returned unchanged. Raises RunNotFound."""
        run = await self.db.write(ownership.cancel, run_id, reason="cancel requested", now=clock.now())
        if run is None:
            raise RunNotFound(f"there is no pipeline run {run_id}")
        if run.status in RUN_TERMINAL:
            if run.started_at is None:
                self.bus.publish(RunEnded(run_id=run_id, status=run.status, reason=run.status_reason))
        elif run.owner == self.node_id:
            self.fleet.cancel(run_id)
        self.wakeups.tell(CANCEL)
        await guarded("cancel", self.passes.stop_cancelled)()  # what the run started, too
        return run

    async def wait(self, run_id: int, timeout_s: float) -> bool:
        """Wait until a run is over, wherever it runs; False when the time is up first. Raises RunNotFound."""
        return await until_over(self.wakeups, self.fleet, run_id, timeout_s)

    async def health(self) -> Mapping[str, Any]:
        """What an operator looks at first. Raises StoreUnavailable."""
        return await vitals(
            self.db,
            ready=self.ready,
            paused=self.settings.paused,
            ticked_at=self.passes.ticked_at,
            driven=len(self.fleet.active),
        )

    def _shut(self) -> None:
        """At the fence, in the lease thread: nothing new begins, whoever holds a stream lets go."""
        self.ready, self.closing = False, True
        if hasattr(self, "intake"):
            self.intake.open, self.fleet.leaving = False, True

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, let running blocks end for `drain_s`, hand the rest over; a fenced one only clears up."""
        self.ready, self.closing, reached = False, True, True
        self._timers.stop()
        if hasattr(self, "intake"):
            self.intake.open = False
            reached = not self.is_lost and await self._drain(drain_s)
            self.fleet.leave()
        for executor in self._executors:
            if self._hurried.is_set() or self.is_lost:
                executor.cut()
            await executor.stop()
        if hasattr(self, "fleet"):
            self._journal.stop()
            done, _ = await asyncio.wait([self._journal_task], timeout=JOURNAL_S if reached else AWAY_S)
            reached = reached or bool(done)
            self._journal_task.cancel()
            await self._wait_for_runs(5)
            self.fleet.close()
        for task in self._tasks:
            task.cancel()
        await self.member.leave(self._run_ids.close, self._block_ids.close, reached=reached)
        if hasattr(self, "wakeups"):
            await self.wakeups.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if reached else AWAY_S):
                await self.db.close()

    def hurry(self) -> None:
        """Cut a drain short: running blocks are killed at once, without grace."""
        self._hurried.set()

    async def _drain(self, drain_s: float) -> bool:
        """Let running blocks end; whether the database could be told."""
        reached = await self.member.drain()
        await self._wait_for_runs(drain_s, unless=self._hurried)
        if self.fleet.active:
            log.info("runs handed over: %d", len(self.fleet.active))
        return reached

    async def _wait_for_runs(self, seconds: float, unless: asyncio.Event | None = None) -> None:
        end = clock.monotonic() + seconds
        with self.bus.subscribe() as events:
            while self.fleet.active and (left := end - clock.monotonic()) > 0:
                if unless is not None and (unless.is_set() or self.is_lost):
                    break
                await events.any(min(left, 0.2))


@asynccontextmanager
async def running(engine: Engine, *, drain_s: float | None = None) -> AsyncIterator[Engine]:
    """Run an engine while the context is open; its tasks belong to the context."""
    async with asyncio.TaskGroup() as group:
        try:
            await engine.start(group)
            yield engine
        finally:
            try:
                await engine.stop(engine.settings.drain_s if drain_s is None else drain_s)
            finally:
                engine.member.ended()
