"""Explanations with their facts: read in one snapshot, decided by the pure functions of `explain` and `explain_run`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.errors import InvalidInput, RunNotFound, ScheduleNotFound
from app.models.pipeline import from_definition
from app.models.rows import RunRow, ScheduleRow, SlotRow
from app.models.states import RunStatus, ScheduleType, SlotOutcome
from app.pipelines import trigger_settings
from app.pipelines.project import ProjectConfig
from app.scheduler import blackouts, catchup
from app.scheduler.blackouts import Blackouts
from app.scheduler.clockchanges import marks_between
from app.scheduler.explain import Reason, Service, explain_slot
from app.scheduler.explain_run import explain_run
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import Timetable
from app.scheduler.waiting import explain_waiting
from app.store import ledger, runs
from app.store.db import Database
from app.store.ledger import Known

_US, _DAY = timedelta(microseconds=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Near:
    """A slot beside a moment, with what became of it. No `starts_at`: no run, or one whose start is not fixed."""

    execution_date: datetime
    starts_at: datetime | None = None
    notes: tuple[str, ...] = ()
    outcome: SlotOutcome | None = None
    reason: str | None = None
    pipeline_run_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAnswer:
    """Why a trigger did, did not or will start a run at `at`."""

    pipeline_schedule_id: int
    at: datetime
    reasons: Sequence[Reason]
    slot: SlotRow | None
    previous: Near | None
    next: Near | None

    @property
    def summary(self) -> str:
        """The reason that decides."""
        return self.reasons[0].message


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnswer:
    """Why a run waits, what it does, or why it ended so."""

    pipeline_run_id: int
    status: RunStatus
    reasons: Sequence[Reason]

    @property
    def summary(self) -> str:
        """The reason that decides."""
        return self.reasons[0].message


async def schedule_at(
    db: Database, project: ProjectConfig, schedule_id: int, at: datetime, *, now: datetime, paused: bool
) -> SlotAnswer:
    """Why a trigger, also a deleted one, did or did not start a run at `at`. Raises ScheduleNotFound."""
    known = await db.read(ledger.known, schedule_id, at)
    if known is None:
        raise ScheduleNotFound(f"No trigger has the id {schedule_id}.")
    then, table, quiet = _judged(_as_then(known), project)
    service = Service(paused=paused, lag_s=_lag_s(known.schedule, now), alive=known.alive)
    covered = quiet.covers(at) if quiet else None
    return SlotAnswer(
        pipeline_schedule_id=schedule_id,
        at=at,
        reasons=explain_slot(known, then, table, at, now=now, service=service, quiet=covered),
        slot=known.slot,
        previous=_near(then, table, quiet, known.before, table.before(at - _US) if table else None),
        next=_near(then, table, quiet, known.after, table.after(at) if table else None),
    )


def _judged(
    then: ScheduleRow, project: ProjectConfig
) -> tuple[ScheduleRow, Timetable | None, Blackouts | None]:
    """A trigger with its timetable and its blackouts; with its fault instead, also one that no tick has met yet."""
    if then.schedule_type is not ScheduleType.TIME:
        return then, None, None
    try:
        trigger_settings.check(then.settings)
        table = table_of(then, week_start=project.week_start)
        return then, table, blackouts.parse(then.settings.get("blackouts"), table.zone.key)
    except InvalidInput as error:
        return replace(then, settings={}, error=then.error or error.detail), None, None


def _as_then(known: Known) -> ScheduleRow:
    """The trigger as it was at the moment. What a revision of an older program does not tell is as it is now."""
    then = known.then
    if then is None or then.revision == known.schedule.revision:
        return known.schedule
    found = replace(
        known.schedule,
        schedule_interval=then.schedule_interval,
        timezone=then.timezone,
        start_time=then.start_time,
    )
    if then.settings is None:
        return found
    return replace(found, settings=then.settings, last_enabled_at=then.last_enabled_at)


def _lag_s(schedule: ScheduleRow, now: datetime) -> float:
    if schedule.next_fire_at is None:
        return 0.0
    return round(max(0.0, (now - schedule.next_fire_at) / timedelta(seconds=1)), 3)


def _near(
    then: ScheduleRow,
    table: Timetable | None,
    quiet: Blackouts | None,
    row: SlotRow | None,
    date: datetime | None,
) -> Near | None:
    """The slot of the timetable, with its row if there is one; without a timetable the row alone."""
    if table is None or date is None:
        return _with_row(Near(row.until or row.execution_date), row) if row else None
    covered = quiet.covers(date) if quiet else None
    notes = [covered.text] if covered else []
    notes += [mark.text for mark in marks_between(table, date - _DAY, date + _DAY) if mark.slot == date]
    starts = None if covered or table.lands else catchup.starts_at(then, table, date)
    return _with_row(Near(date, starts, tuple(notes)), row)


def _with_row(near: Near, row: SlotRow | None) -> Near:
    if row is None or not row.execution_date <= near.execution_date <= (row.until or row.execution_date):
        return near
    return replace(near, outcome=row.outcome, reason=row.reason, pipeline_run_id=row.pipeline_run_id)


async def run(db: Database, run_id: int, *, now: datetime) -> RunAnswer:
    """Why a run waits, what it does, or why it ended so. Raises RunNotFound."""
    found = await db.read(runs.load, run_id)
    if found is None:
        raise RunNotFound(f"No pipeline run has the id {run_id}.")
    pipeline = from_definition(found.definition)
    waits = await _waits(db, found.run)
    reasons = explain_run(found.run, pipeline, found.blocks, waits, now=now)
    return RunAnswer(pipeline_run_id=run_id, status=found.run.status, reasons=reasons)


async def _waits(db: Database, run: RunRow) -> Sequence[Reason]:
    """What keeps a run that has not started from starting."""
    return await db.read(explain_waiting, run.id) if run.status is RunStatus.INITIAL else ()
