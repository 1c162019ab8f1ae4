"""The passes that the timers ask for: thin loops over the store and the pure functions.

Each looks at what is there now and does what is due; a pass that comes late or twice changes nothing.
"""

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta

from app import clock
from app.errors import InvalidInput, PipelineInvalid, PipelineNotFound, StoreUnavailable
from app.models.pipeline import Pipeline, from_definition
from app.models.rows import ScheduleRow
from app.models.states import Cause
from app.pipelines.catalogue import Catalogue
from app.pipelines.faultlog import FaultLog
from app.scheduler import launch, progress, sync, timetable
from app.scheduler.fleet import Fleet
from app.scheduler.intake import Intake
from app.scheduler.node import provably_dead
from app.scheduler.tick import Decision, Plan, decide
from app.scheduler.tick import plan as plan_trigger
from app.store import idempotency, nodes, ownership, runs, schedules
from app.store.db import Clash, Database, Tx
from app.store.ids import Ids
from app.store.nodes import NodeRow
from app.store.sql import lock_named

log = logging.getLogger(__name__)

#: Triggers decided in one transaction.
BATCH = 500
#: Days that a node which has ended, and the key of a request, are remembered.
KEPT_DAYS = 7
#: `@always_on` asks after a pipeline that is broken no more often than this.
BROKEN_S = 60.0


class Passes:
    """Everything a node does because time has gone by."""

    def __init__(
        self,
        *,
        db: Database,
        catalogue: Catalogue,
        me: NodeRow,
        fleet: Fleet,
        intake: Intake,
        run_ids: Ids,
        block_ids: Ids,
        schedule_ids: Ids,
    ) -> None:
        self._db, self._catalogue, self._me = db, catalogue, me
        self._fleet, self._intake = fleet, intake
        self._run_ids, self._block_ids, self._schedule_ids = run_ids, block_ids, schedule_ids
        self._strays: set[int] = set()
        self._unsynced = self._more_to_take = False
        self._faults = FaultLog()
        self._ticking = asyncio.Lock()
        #: when the tick last ended, for `/health`
        self.ticked_at: datetime | None = None

    async def tick(self) -> datetime | None:
        """Decide every due slot; returns when the next one is due."""
        async with self._ticking:
            while await self._decide_batch() == BATCH:
                pass
            self.ticked_at = clock.now()
            return await self._db.read(schedules.next_due)

    async def _decide_batch(self) -> int:
        now = clock.now()
        due = await self._db.read(schedules.due, now=now, limit=BATCH)
        decisions = [d for schedule in due if (d := await self._decision(schedule, now)) is not None]
        if await self._write(decisions):
            self._intake.want_admission()
        return len(due)

    async def _write(self, decisions: list[Decision]) -> bool:
        """Write decisions; whether a run waits now. One that cannot be written is quarantined, and hurts no other."""
        if not decisions:
            return False
        try:
            return bool(await self._db.write(decide, decisions, node_id=self._me.id, now=clock.now()))
        except StoreUnavailable:
            raise
        except Exception as error:  # belongs to one trigger; the tick is for all of them
            if len(decisions) > 1:
                return any([await self._write([decision]) for decision in decisions])
            schedule = decisions[0].schedule
            log.exception("trigger %d ('%s'): its slot cannot be written", schedule.id, schedule.name)
            await self._quarantine(schedule, f"its slot could not be written: {type(error).__name__}")
            return False

    async def _decision(self, schedule: ScheduleRow, now: datetime) -> Decision | None:
        """The plan for a due trigger, with its run. One that cannot be planned is quarantined, and hurts no other."""
        try:
            table = timetable.parse(
                schedule.schedule_interval or "",
                schedule.timezone or "UTC",
                self._catalogue.project.week_start,
            )
            live, last_end = (False, None)
            if table.kind == "always_on":
                live, last_end = await self._db.read(schedules.last_run_end, schedule.id)
            plan = plan_trigger(schedule, table, now=now, live=live, last_end=last_end)
            if plan.fire is None:
                return Decision(schedule=schedule, plan=plan)
            return await self._with_run(schedule, plan, plan.fire, now)
        except InvalidInput as error:
            await self._quarantine(schedule, str(error))
        except StoreUnavailable:
            raise
        except Exception as error:  # belongs to one trigger; the tick is for all of them
            log.exception("trigger %d ('%s') cannot be decided", schedule.id, schedule.name)
            await self._quarantine(schedule, f"its slot could not be decided: {type(error).__name__}")
        return None

    async def _quarantine(self, schedule: ScheduleRow, reason: str) -> None:
        log.warning("trigger %d ('%s') is quarantined: %s", schedule.id, schedule.name, reason)
        await self._db.write(schedules.quarantine, schedule, reason, now=clock.now())

    async def _with_run(self, schedule: ScheduleRow, plan: Plan, date: datetime, now: datetime) -> Decision:
        request = launch.LaunchRequest(
            pipeline_uuid=schedule.pipeline_uuid, execution_date=date, cause=Cause.TICK
        )
        try:
            pipeline = self._catalogue.get(schedule.pipeline_uuid)
        except (PipelineNotFound, PipelineInvalid) as error:
            log.warning("trigger '%s': slot %s is missed: %s", schedule.name, date, error)
            if schedule.schedule_interval == "@always_on":  # always due: not a missed slot a second
                plan = replace(plan, next_fire_at=now + timedelta(seconds=BROKEN_S))
            return Decision(schedule=schedule, plan=plan)
        new, _part = await launch.new_run(
            pipeline,
            request,
            run_ids=self._run_ids,
            block_ids=self._block_ids,
            now=now,
            schedule=schedule,
            extra={"dedupe_scope": f"schedule:{schedule.id}", "dedupe_key": f"tick:{date.isoformat()}"},
        )
        return Decision(schedule=schedule, plan=plan, run=new)

    async def sync(self, *, force: bool = False) -> bool:
        """Read what changed in the project folder; bring triggers and limits to it."""
        changed = await asyncio.to_thread(self._catalogue.refresh)
        # Until the database has it: the catalogue tells of a change once, and the database may be away.
        self._unsynced = self._unsynced or changed or force
        if not self._unsynced:
            return False
        self._faults.look(self._catalogue)
        entries, unread = self._catalogue.triggers(), self._catalogue.unread_triggers()
        missing = sync.new_keys(await self._db.read(schedules.with_digests), entries)
        ids = dict(zip(missing, await self._schedule_ids.take(len(missing)), strict=True)) if missing else {}
        pipelines = [entry.pipeline for entry in self._catalogue.entries() if entry.pipeline is not None]

        def write(tx: Tx) -> int:
            lock_named(tx, "triggers")  # replicas read the same files: one writes, the next finds it done
            now = clock.now()
            sync.apply_pipeline_limits(tx, pipelines, now=now)
            by = sync.By(self._me.id, now, self._catalogue.project.week_start)
            return sync.apply(tx, entries, ids, unread=unread, by=by)

        try:
            count = await self._db.write(write)
        except (Clash, KeyError) as error:  # another replica was between our look and our lock
            log.info("triggers: looked at anew (%s)", type(error).__name__)
            return await self.sync(force=True)
        self._unsynced = False
        if count:
            log.info("triggers new or changed in their files: %d", count)
        self._intake.want_admission()
        return True

    async def poll(self) -> None:
        """What a lost wake-up would have said: cancels asked for elsewhere, runs that wait."""
        await self.stop_cancelled()
        if self._more_to_take:
            await self._take_over()
        self._intake.want_admission()

    async def stop_cancelled(self) -> None:
        """Stop every own run whose cancel is on record."""
        for run_id in await self._db.read(runs.cancel_asked, self._me.id):
            self._fleet.cancel(run_id)

    async def recover(self) -> None:
        """Fence the dead, take over what they owned, find own runs that nobody drives."""
        now = clock.now()
        only_one = self._db.dialect == "sqlite"
        dead = provably_dead(await self._db.read(nodes.alive), self._me, only_one=only_one)
        if dead:
            await self._db.write(nodes.fence, [node.id for node in dead], now=now)
        if not only_one:
            await self._db.write(nodes.fence_expired, now=now)
        await self._take_over()
        await self._find_strays()

    async def _take_over(self) -> None:
        """Runs that only wait first, all of them; then as many others as there are free slots."""
        while parked := await self._db.write(
            ownership.take_over_parked, self._me.id, limit=BATCH, now=clock.now()
        ):
            definitions = await self._db.read(runs.definitions, {run.definition_hash for run in parked})
            for run in parked:
                self._park(run, from_definition(definitions[run.definition_hash]))
        if not (free := self._fleet.free):
            return
        found = await self._db.write(ownership.takeover, self._me.id, limit=free, now=clock.now())
        self._more_to_take = len(found) == free  # most of a node's runs are parked, and soon are so again
        for taken in found:
            log.info("run %d taken over at epoch %d", taken.run_id, taken.epoch)
            if taken.lost >= progress.MAX_LOST:
                await self._db.write(
                    ownership.abort,
                    taken.run_id,
                    self._me.id,
                    taken.epoch,
                    reason="recovery limit",
                    now=clock.now(),
                )
            else:
                self._fleet.wake(taken.run_id)

    def _park(self, run: ownership.Parked, pipeline: Pipeline) -> None:
        """Park a run again, unless a block of it is ready: then its node died before starting that."""
        if progress.ready(pipeline, run.statuses):
            self._fleet.wake(run.run_id)
        else:
            self._fleet.parking.park(run.run_id, run.wake_at)

    async def forget(self) -> None:
        """Drop the nodes that ended long ago, and the keys of requests that nobody repeats any more."""
        before = clock.now() - timedelta(days=KEPT_DAYS)
        await self._db.write(nodes.forget, before=before)
        await self._db.write(idempotency.forget, before=before)

    async def _find_strays(self) -> None:
        """Own runs that are neither driven nor parked, twice in a row: a wake-up was lost."""
        owned = await self._db.read(runs.owned, self._me.id)
        unknown = {run_id for run_id, _epoch in owned if not self._fleet.knows(run_id)}
        for run_id in unknown & self._strays:
            log.warning("run %d was driven by nobody: going on with it", run_id)
            self._fleet.wake(run_id)
        self._strays = unknown
