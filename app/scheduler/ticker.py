"""The tick of a node: what is due is read, planned, written. What is wrong with one trigger hurts no other.

A trigger that cannot be planned is set aside with its error. It is looked at again every minute, when the project
changes, and at once when its row does; once mended it goes on, and what was due meanwhile is on record.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from app import clock
from app.errors import InvalidInput, PipelineInvalid, PipelineNotFound, StoreUnavailable
from app.models.pipeline import Pipeline
from app.models.rows import ScheduleRow
from app.models.states import Cause
from app.pipelines import trigger_settings
from app.pipelines.catalogue import Catalogue
from app.scheduler import blackouts, landing, launch, limiting, sync
from app.scheduler.intake import Intake
from app.scheduler.tables_of import table_of
from app.scheduler.tick import FAILURES, Decision, Plan, Recent, decide, plan
from app.scheduler.timetable import Timetable
from app.store import looks, slots
from app.store.db import Database, Tx
from app.store.ids import Ids
from app.store.launch import NewRun
from app.store.sql import in_chunks, lock_named

log = logging.getLogger(__name__)

#: Triggers looked at in one round; runs made in one transaction.
BATCH: Final = 500
#: Triggers taken up again in one transaction: it holds up whoever else writes.
TAKEN_UP: Final = 100
#: `@always_on` asks after a pipeline that is broken no more often than this.
BROKEN_S: Final = 60.0
#: Triggers that are watched for a mended row, at most; the others are looked at every minute.
WATCHED: Final = 500


class Ticker:
    """Decides what is due, on one node."""

    def __init__(
        self,
        *,
        db: Database,
        catalogue: Catalogue,
        node_id: str,
        intake: Intake,
        run_ids: Ids,
        block_ids: Ids,
    ) -> None:
        self._db, self._catalogue, self._node_id, self._intake = db, catalogue, node_id, intake
        self._run_ids, self._block_ids = run_ids, block_ids
        self._alone = asyncio.Lock()
        #: triggers that were set aside, as they were then
        self._aside: dict[int, ScheduleRow] = {}
        #: what this round sets aside: written together, and after what it decides
        self._faults: list[tuple[ScheduleRow, str]] = []
        #: and what it takes up again
        self._mended: list[ScheduleRow] = []
        self._searched: datetime | None = None
        #: when the tick last ended, for `/health`
        self.ticked_at: datetime | None = None

    async def tick(self) -> datetime | None:
        """Decide every due slot; returns when the next one is due. While everything is paused, nothing is: None."""
        async with self._alone:
            look = await self._look()
            if not look.paused and await self._look_aside():
                look = await self._look()
            # Looked at anew for each round: a pause that comes meanwhile leaves what is due as it is.
            more = True
            while more and look.schedules:
                more = await self._round(look.schedules)
                look = await self._look()
            self.ticked_at = clock.now()
            return None if look.paused else look.next_due

    async def _look(self) -> looks.Due:
        return await self._db.read(looks.due, now=clock.now(), limit=BATCH)

    async def _round(self, due: list[ScheduleRow]) -> bool:
        """Decide what is due; whether there may be more. Those that catch up come behind the others."""
        now = clock.now()
        decisions = [d for schedule in due if (d := await self._decision(schedule, now)) is not None]
        written = [await self._write(part) for part in _parts(decisions)]
        await self._write_aside()
        if any(written):
            self._intake.has_news()
        catching_up = any(d.plan.next_fire_at == now for d in decisions)
        return len(due) == BATCH or catching_up

    async def _write(self, decisions: list[Decision]) -> bool:
        """Write decisions; whether a run waits now. One that cannot be written is set aside, and hurts no other."""
        if not decisions:
            return False
        try:
            return bool(await self._db.write(decide, decisions, node_id=self._node_id, now=clock.now()))
        except StoreUnavailable:
            raise
        except Exception as error:  # belongs to one trigger; the tick is for all of them
            if len(decisions) > 1:
                half = len(decisions) // 2
                return any([await self._write(part) for part in (decisions[:half], decisions[half:])])
            schedule = decisions[0].schedule
            log.exception("trigger %d ('%s'): its slot cannot be written", schedule.id, schedule.name)
            self._set_aside(schedule, f"its slot could not be written: {type(error).__name__}")
            return False

    async def _decision(self, schedule: ScheduleRow, now: datetime) -> Decision | None:
        """The plan for a due trigger, with its runs; None when it is set aside, or taken up, instead."""
        try:
            table = self.judge(schedule)
            if schedule.error is not None:
                self._mended.append(schedule)
                return None
            planned = plan(schedule, table, now=now, recent=await self._recent(schedule, table))
            return await self._with_runs(schedule, planned, now) if planned.fires else _of(schedule, planned)
        except (InvalidInput, PipelineNotFound) as error:
            self._set_aside(schedule, error.detail)
        except StoreUnavailable:
            raise
        except Exception as error:  # belongs to one trigger; the tick is for all of them
            log.exception("trigger %d ('%s') cannot be decided", schedule.id, schedule.name)
            self._set_aside(schedule, f"its slot could not be decided: {type(error).__name__}")
        return None

    def judge(self, schedule: ScheduleRow) -> Timetable:
        """The timetable of a trigger that can be scheduled. Raises InvalidInput, PipelineNotFound."""
        return judge(schedule, self._catalogue)

    async def _recent(self, schedule: ScheduleRow, table: Timetable) -> Recent:
        if table.kind == "always_on":
            live, last_end, failures = await self._db.read(slots.last_runs, schedule.id, FAILURES)
            return Recent(live, last_end, failures)
        if table.lands:
            known = await self._db.read(slots.runtimes, schedule.id, landing.HISTORY)
            return Recent(expected=landing.expected(known))
        return Recent()

    async def _with_runs(self, schedule: ScheduleRow, planned: Plan, now: datetime) -> Decision:
        try:
            pipeline = self._catalogue.get(schedule.pipeline_uuid)
        except PipelineInvalid as error:
            log.warning(
                "trigger '%s': slot %s is missed: %s", schedule.name, planned.fires[-1].date, error.detail
            )
            if schedule.schedule_interval == "@always_on":  # always due: not a missed slot a second
                planned = replace(planned, next_fire_at=now + timedelta(seconds=BROKEN_S))
            return _of(schedule, planned)
        runs = {fire.date: await self._run(schedule, pipeline, fire.date, now) for fire in planned.fires}
        return Decision(schedule=schedule, plan=planned, runs=runs)

    async def _run(self, schedule: ScheduleRow, pipeline: Pipeline, date: datetime, now: datetime) -> NewRun:
        request = launch.LaunchRequest(
            pipeline_uuid=schedule.pipeline_uuid, execution_date=date, cause=Cause.TICK
        )
        extra = {"dedupe_scope": f"schedule:{schedule.id}", "dedupe_key": f"tick:{date.isoformat()}"}
        new, _part = await launch.new_run(
            pipeline,
            request,
            run_ids=self._run_ids,
            block_ids=self._block_ids,
            now=now,
            schedule=schedule,
            extra=extra,
            week_start=self._catalogue.project.week_start,
        )
        return new

    def _set_aside(self, schedule: ScheduleRow, reason: str) -> None:
        if schedule.error != reason or schedule.unreadable:
            log.warning("trigger %d ('%s') is quarantined: %s", schedule.id, schedule.name, reason)
        self._faults.append((schedule, reason))
        if len(self._aside) < WATCHED or schedule.id in self._aside:
            self._aside[schedule.id] = _as_watched(schedule)

    async def _write_aside(self) -> None:
        """Write what was taken up again, then what was set aside."""
        mended, self._mended = self._mended, []
        for part in in_chunks(mended, TAKEN_UP):
            await self._write_mended(part)
        await self._write_faults()

    async def _write_faults(self) -> None:
        """Write what was set aside: a transaction for all, since two thousand of them would hold up the others."""
        faults, self._faults = self._faults, []
        if not faults:
            return
        try:
            await self._db.write(slots.quarantine, faults, now=clock.now())
        except StoreUnavailable:
            raise
        except Exception:  # belongs to one trigger, whose fault is no text that the database takes
            log.exception("triggers cannot be set aside together; each by itself")
            for schedule, _fault in faults:
                one = [(schedule, "it cannot be scheduled, nor its fault be written down")]
                await self._db.write(slots.quarantine, one, now=clock.now())

    async def _write_mended(self, mended: Sequence[ScheduleRow]) -> None:
        """Take up triggers again that were set aside. One that cannot be is set aside anew, and hurts no other."""
        try:
            taken = await self._db.write(self._take_up, mended)
        except StoreUnavailable:
            raise
        except Exception as error:  # belongs to one trigger; the tick is for all of them
            if half := len(mended) // 2:
                await self._write_mended(mended[:half])
                await self._write_mended(mended[half:])
                return
            log.exception("trigger %d ('%s') cannot be taken up again", mended[0].id, mended[0].name)
            self._set_aside(mended[0], f"it could not be taken up again: {type(error).__name__}")
            return
        for schedule in taken:
            self._aside.pop(schedule.id, None)
            log.info("trigger %d ('%s') is mended", schedule.id, schedule.name)

    def _take_up(self, tx: Tx, mended: Sequence[ScheduleRow]) -> list[ScheduleRow]:
        lock_named(tx, "triggers")  # the time is asked after it: what came due in the wait is missed as well
        limits = limiting.limits_in(entry.pipeline for entry in self._catalogue.entries())
        by = sync.By(self._node_id, clock.now(), self._catalogue.project.week_start, limits)
        return sync.take_up(tx, mended, by=by)

    async def _look_aside(self) -> bool:
        """Look at triggers whose rows somebody has written by hand: those set aside that changed, those never seen.

        Whether there was any.
        """
        now, changed = clock.now(), []
        if self._aside:
            found = await self._db.read(slots.of_ids, list(self._aside))
            rows = [row for row in found if not self._is_taken_up(row)]
            self._aside = {row.id: self._aside[row.id] for row in rows}
            changed = [row for row in rows if _as_watched(row) != self._aside[row.id]]
        if self._searched is None or now - self._searched >= slots.LOOK_AGAIN:
            self._searched = now
            changed += await self._db.read(slots.never_seen, limit=BATCH)
        for row in changed:
            await self._decision(replace(row, error=row.error or "was set aside"), now)
        await self._write_aside()
        return bool(changed)

    def _is_taken_up(self, row: ScheduleRow) -> bool:
        """Whether the service itself, here or on another node, has written a trigger since it was set aside here."""
        return row.error is None and row.revision != self._aside[row.id].revision


def judge(schedule: ScheduleRow, catalogue: Catalogue) -> Timetable:
    """The timetable of a trigger whose row can be understood. Raises InvalidInput, PipelineNotFound."""
    if schedule.unreadable:
        raise InvalidInput(schedule.error or "its row in the database cannot be read")
    settings = trigger_settings.check(schedule.settings)
    table = table_of(schedule, week_start=catalogue.project.week_start)
    blackouts.parse(settings.get("blackouts"), table.zone.key)
    catalogue.entry(schedule.pipeline_uuid)
    return table


def _of(schedule: ScheduleRow, planned: Plan) -> Decision:
    return Decision(schedule=schedule, plan=planned)


def _as_watched(schedule: ScheduleRow) -> ScheduleRow:
    """What a hand in the table may change; what the service itself writes about a trigger set aside is left out."""
    return replace(schedule, error=None, next_fire_at=None, updated_at=schedule.created_at)


def _parts(decisions: Sequence[Decision]) -> list[list[Decision]]:
    """Decisions in transactions of at most so many runs."""
    parts: list[list[Decision]] = [[]]
    count = 0
    for decision in decisions:
        count += len(decision.plan.fires)
        if count > BATCH and parts[-1]:
            parts.append([])
            count = len(decision.plan.fires)
        parts[-1].append(decision)
    return parts
