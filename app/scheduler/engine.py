"""The engine: one node of the service. The doors talk to it, everything else is behind it."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from app import clock
from app.errors import Conflict, RunNotFound, StoreUnavailable
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
from app.scheduler.node import provably_dead, set_clock, this_node
from app.scheduler.passes import Passes
from app.scheduler.requests import Requests
from app.scheduler.timers import Timers
from app.scheduler.tools import Hooks, Tools
from app.scheduler.triggers import Triggers
from app.settings import Settings
from app.store import health, migrate, nodes, ownership, runs
from app.store.db import Clash, Database
from app.store.idempotency import Idempotency
from app.store.ids import Ids
from app.store.journal import Journal
from app.store.lease import Lease
from app.store.opening import backend_for, open_database

log = logging.getLogger(__name__)

#: Exit code of a node that must not go on: its lease is gone, others may own its runs.
EXIT_FENCED = 75
POLL_S = 1.0
RECOVER_S = 3.0
FORGET_S = 3600.0


MakeExecutors = Callable[[str, Sequence[str]], tuple[Executor, Executor | None]]


class Engine:
    """A node. Make it, then use it inside `async with running(engine)`."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        make_executors: MakeExecutors,
        scheduling: bool = True,
        borrow: Settings | None = None,
    ) -> None:
        """`scheduling=False`: run only what is launched here. `borrow`: a service whose outputs may be read.

        `make_executors(node_id, dead_node_ids)` gives the executor for workers and, if allowed, the inline one.
        """
        self.settings, self.catalogue = settings, catalogue
        self.db: Database = open_database(settings.store_url)
        self.bus = Bus()
        self.ready = False
        self.first_start = False  # the database is this project's since this start
        #: set once the service stops: whoever holds a stream open lets go
        self.closing = False
        self._hurried = asyncio.Event()
        self.me = this_node(now=clock.now(), lease_s=settings.lease_s)
        self._make_executors = make_executors
        self._scheduling, self._borrow = scheduling, borrow
        self._run_ids, self._block_ids = Ids(self.db, "pipeline_run"), Ids(self.db, "block_run")
        self._timers = Timers()
        self._joined = False
        self._lease: Lease | None = None
        self._executors: list[Executor] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def node_id(self) -> str:
        """This process's identity in the database."""
        return self.me.id

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Open the database, become a node, recover what a dead one left, start ticking."""
        settings = self.settings
        # Off the loop: alembic is synchronous, and on Postgres runs a loop of its own.
        await asyncio.to_thread(migrate.upgrade, settings.store_url)
        await self.db.open()
        await asyncio.to_thread(self.catalogue.refresh)
        self.first_start = await self.db.write(nodes.bind_project, self.catalogue.project.uuid)
        dead = await self._become_node()
        workers, inline = self._make_executors(self.node_id, dead)
        self._executors = [executor for executor in (workers, inline) if executor is not None]
        for executor in self._executors:
            await executor.start()
        self._journal = Journal(backend_for(self.db, self.node_id))
        tools = Tools(
            journal=self._journal,
            bus=self.bus,
            workers=workers,
            inline=inline,
            project=settings.project,
            artifacts=settings.artifacts,
            python=lambda: settings.python or self.catalogue.project.python,
            env=settings.env,
            hooks=Hooks(answer=self._requests().answer, cancel=self.cancel),
        )
        self._build(tools, group)
        self._journal_task = group.create_task(self._journal.run(), name="journal")
        self._tasks = [
            group.create_task(self.intake.serve(), name="intake"),
            group.create_task(self.intake.serve_admissions(), name="admission"),
            group.create_task(self._mark_alive(), name="alive"),
        ]
        await self.passes.recover()  # first: what a dead process left has waited long enough
        if self._scheduling:
            await self.passes.sync(force=True)
        if self._scheduling:
            self._start_timers()
            await self._tick()
        self.ready = True

    def _requests(self) -> Requests:
        return Requests(
            self.db,
            self.catalogue,
            self.launch,
            self.wait,
            lambda uuid, name: self.triggers.named(uuid, name),
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
        self.fleet.freed = tools.hooks.freed = self.intake.freed
        self.passes = Passes(
            db=self.db,
            catalogue=self.catalogue,
            me=self.me,
            fleet=self.fleet,
            intake=self.intake,
            run_ids=self._run_ids,
            block_ids=self._block_ids,
            schedule_ids=Ids(self.db, "pipeline_schedule", size=1),
        )
        self.triggers = Triggers(
            db=self.db, catalogue=self.catalogue, node_id=self.node_id, launch=self.launch
        )

    async def _become_node(self) -> list[str]:
        """Register, with the dead of this host fenced first; returns their ids."""
        await set_clock(self.db)
        now = clock.now()
        lease_until = now + timedelta(seconds=self.settings.lease_s)
        self.me = replace(self.me, started_at=now, lease_until=lease_until)
        alive = await self.db.read(nodes.alive)
        dead = [n.id for n in provably_dead(alive, self.me, only_one=self.db.dialect == "sqlite")]
        await self.db.write(nodes.fence, dead, now=clock.now())
        await self.db.write(nodes.register, self.me)
        self._joined = True
        if self.db.dialect == "postgresql":
            self._lease = Lease(self.db.url, self.node_id, self.settings.lease_s, _die)
            self._lease.start()
        return dead

    def _start_timers(self) -> None:
        timers = self._timers
        timers.every(1.0, "tick", self._guarded("tick", self._tick))
        timers.every(POLL_S, "poll", self._guarded("poll", self.passes.poll))
        timers.every(1.0, "sync", self._guarded("sync", self.passes.sync))
        timers.every(RECOVER_S, "recover", self._guarded("recover", self.passes.recover), jitter_s=1)
        timers.every(FORGET_S, "forget", self._guarded("forget", self.passes.forget), jitter_s=60)
        timers.start()

    async def _mark_alive(self) -> None:
        """Tell the lease that this loop turns, from the start to the end of a drain; the engine owns this task."""
        while self._lease is not None:
            self._lease.mark_alive()
            await asyncio.sleep(self.settings.lease_s / 8)

    async def _tick(self) -> None:
        if self.settings.paused:
            return
        next_due = await self.passes.tick()
        now = clock.now()
        if next_due is not None and now < next_due < now + timedelta(seconds=1.5):
            self._timers.at(next_due, "due", self._guarded("tick", self._tick))

    @staticmethod
    def _guarded(name: str, work: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
        """A pass that logs an absent database in one line; the next pass tries again."""

        async def run() -> None:
            try:
                await work()
            except StoreUnavailable as error:
                log.warning("%s: %s", name, error)

        return run

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
        if request.block_uuid is not None and carried is None:
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
        )
        return await self.intake.launch(replace(new, request=idempotency), part)

    async def retry(
        self,
        run_id: int,
        *,
        source: str = "failed",
        variables: Mapping[str, Any] | None = None,
        idempotency: Idempotency | None = None,
    ) -> RunRow:
        """Run a finished run again as a new one, from what failed, from the start, or from a block.

        `variables` overwrite those of the old run. Raises RunNotFound, Conflict while it or another retry of it is
        live, UnknownBlock, and what :meth:`launch` raises.
        """
        plan = await retrying.plan(self.db, self.catalogue, run_id, source=source, variables=variables)
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
        await self.passes.stop_cancelled()  # what the run started is asked to stop with it
        return run

    async def wait(self, run_id: int, timeout_s: float) -> bool:
        """Wait until a run is over, wherever it runs; False when the time is up first."""
        try:
            async with asyncio.timeout(timeout_s):
                with self.bus.subscribe(run_id) as events:
                    while not await self._is_over(run_id):
                        await events.any(POLL_S)  # the poll is for a run that another node drives
        except TimeoutError:
            return False
        return True

    async def _is_over(self, run_id: int) -> bool:
        run = await self.db.read(runs.get, run_id)
        if run is None:
            raise RunNotFound(f"there is no pipeline run {run_id}")
        return run.status in RUN_TERMINAL

    async def health(self) -> Mapping[str, Any]:
        """What an operator looks at first. Raises StoreUnavailable."""
        found = await self.db.read(health.facts, now=clock.now())
        if self._lease is None:
            found.nodes = [
                {**node, "lease_until": None} for node in found.nodes
            ]  # the file's lock is the lease
        return {
            "ready": self.ready,
            "paused": self.settings.paused,
            "scheduler_lag_s": 0.0 if self.settings.paused else found.lag_s,
            "oldest_due_slot": found.oldest_due,
            "next_due": found.next_due,
            "last_tick_at": self.passes.ticked_at,
            "nodes": found.nodes,
            "runs": {**found.runs, "driven_here": len(self.fleet.active)},
        }

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, let running blocks end for `drain_s`, hand the rest over."""
        self.ready, self.closing = False, True
        self.closing = True
        self._timers.stop()
        if hasattr(self, "intake"):
            self.intake.open = False
            await self._drain(drain_s)
        for executor in self._executors:
            await executor.stop()
        if hasattr(self, "fleet"):
            await self._wait_for_runs(5)
            self._journal.stop()
            await asyncio.wait([self._journal_task], timeout=5)
            self._journal_task.cancel()
        for task in self._tasks:
            task.cancel()
        if self._lease is not None:
            await self._lease.stop()
        if self._joined:
            await self._sign_off()
        await self.db.close()

    def hurry(self) -> None:
        """Cut a drain short."""
        self._hurried.set()

    async def _drain(self, drain_s: float) -> None:
        try:
            await self.db.write(nodes.drain, self.node_id)
        except StoreUnavailable as error:
            log.warning("stop: %s", error)
        await self._wait_for_runs(drain_s, unless=self._hurried)
        if self.fleet.active:
            log.info("runs handed over: %d", len(self.fleet.active))
        self.fleet.leave()

    async def _wait_for_runs(self, seconds: float, unless: asyncio.Event | None = None) -> None:
        end = clock.monotonic() + seconds
        with self.bus.subscribe() as events:
            while self.fleet.active and (left := end - clock.monotonic()) > 0:
                if unless is not None and unless.is_set():
                    break
                await events.any(min(left, 0.2))

    async def _sign_off(self) -> None:
        try:
            await self.db.write(nodes.hand_over, self.node_id, now=clock.now())
            await self._run_ids.close()
            await self._block_ids.close()
        except StoreUnavailable as error:
            log.warning("stop: %s; others will notice by the lease", error)


def _die(reason: str) -> None:
    """Stop this process at once: the warden sees it and kills all user code; nothing more is written."""
    log.critical("this node must not go on: %s", reason)
    os._exit(EXIT_FENCED)


@asynccontextmanager
async def running(engine: Engine, *, drain_s: float | None = None) -> AsyncIterator[Engine]:
    """Run an engine while the context is open; its tasks belong to the context."""
    async with asyncio.TaskGroup() as group:
        try:
            await engine.start(group)
            yield engine
        finally:
            await engine.stop(engine.settings.drain_s if drain_s is None else drain_s)
