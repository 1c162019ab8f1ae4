"""The tick: every due slot of every trigger gets its one row, and a run where it should have one.

`plan` decides, purely; `tick` asks the store what is due, asks `plan`, and tells the store: one transaction
whose compare-and-set on the trigger makes it happen once, however many nodes tick.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.models.rows import ScheduleRow
from app.models.states import RunStatus, SlotOutcome
from app.scheduler.admission import Birth, at_birth
from app.scheduler.timetable import Timetable
from app.store import launch, schedules, scopes
from app.store.db import Tx
from app.store.launch import NewRun
from app.store.schedules import NewSlot

#: Dropped slots get a row each up to here; a longer stretch is one row with a count.
ROWS_EACH = 20
#: Beyond this a stretch is not counted further.
COUNT_LIMIT = 10_000
#: `@always_on` starts no run sooner than this after the one before was made.
ALWAYS_ON_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trigger does now: `fire` is the slot that gets a run, `dropped` the rows of those that do not."""

    cursor_at: datetime | None
    next_fire_at: datetime | None
    fire: datetime | None = None
    dropped: tuple[NewSlot, ...] = ()


def first_look(schedule: ScheduleRow, table: Timetable, *, now: datetime) -> Plan:
    """Where a trigger begins that was enabled or changed at `now`: an edit never fires the past."""
    cursor = max(filter(None, (schedule.cursor_at, now)))
    if table.kind != "calendar":
        due = schedule.start_time if schedule.start_time and schedule.start_time > now else now
        return Plan(schedule.cursor_at, due)
    if schedule.start_time and schedule.start_time > cursor:
        cursor = schedule.start_time - timedelta(microseconds=1)  # a slot at start_time itself is due
    return Plan(cursor, table.after(cursor))


def plan(
    schedule: ScheduleRow,
    table: Timetable,
    *,
    now: datetime,
    live: bool = False,
    last_end: datetime | None = None,
) -> Plan:
    """What is due of a trigger. `live` and `last_end` tell of its newest run, for `@always_on`."""
    if table.kind == "once":
        date = once_at(schedule)
        if schedule.cursor_at is not None and date <= schedule.cursor_at:
            return Plan(schedule.cursor_at, None)
        return Plan(date, None, fire=date)
    if table.kind == "always_on":
        return _plan_always_on(schedule, now=now, live=live, last_end=last_end)
    cursor = schedule.cursor_at or now
    latest = table.before(now)
    if latest is None or latest <= cursor:
        return Plan(schedule.cursor_at, table.after(max(cursor, now)))
    # `catch_up: latest`, as in Mage, but on the record.
    before = dropped(table, cursor, latest - timedelta(microseconds=1), reason="catch_up")
    return Plan(latest, table.after(now), fire=latest, dropped=before)


def once_at(schedule: ScheduleRow) -> datetime:
    """The one execution date of an `@once` trigger."""
    return schedule.start_time or schedule.last_enabled_at or schedule.created_at


def _plan_always_on(schedule: ScheduleRow, *, now: datetime, live: bool, last_end: datetime | None) -> Plan:
    """The next run follows the end of the one before, which is its execution date: two nodes agree on it."""
    again = now + timedelta(seconds=ALWAYS_ON_S)
    if live:
        return Plan(schedule.cursor_at, again)
    enabled = schedule.last_enabled_at or schedule.created_at
    date = max(last_end, enabled) if last_end else enabled
    if schedule.cursor_at is not None and date <= schedule.cursor_at:
        # The slot before got no run, or a clock was set back: this one is still another, and the next.
        date = schedule.cursor_at + timedelta(microseconds=1)
    return Plan(date, again, fire=date)


def dropped(
    table: Timetable,
    after: datetime,
    until: datetime,
    *,
    reason: str,
    outcome: SlotOutcome = SlotOutcome.MISSED,
) -> tuple[NewSlot, ...]:
    """Rows for the slots in (after, until] that get no run: one each, or one with a count for a long stretch."""
    dates = table.between(after, until, ROWS_EACH + 1)
    if len(dates) <= ROWS_EACH:
        return tuple(NewSlot(execution_date=date, outcome=outcome, reason=reason) for date in dates)
    count = table.count_between(after, until, COUNT_LIMIT)
    last = table.before(until)
    return (NewSlot(execution_date=dates[0], outcome=outcome, reason=reason, until=last, count=count),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A planned trigger with the run that is ready to be made for its slot."""

    schedule: ScheduleRow
    plan: Plan
    #: what is made unless a limit, looked at under its lock, says otherwise; None: the pipeline is broken
    run: NewRun | None = None


def decide(tx: Tx, decisions: list[Decision], *, node_id: str, now: datetime) -> dict[int, int]:
    """Write decisions; returns trigger id -> run id of the runs that now wait.

    A trigger that somebody else has moved on meanwhile is left out: its slot is decided.
    """
    made: dict[int, int] = {}
    for decision in sorted(decisions, key=lambda d: d.schedule.id):
        planned = decision.plan
        if not schedules.advance(
            tx, decision.schedule, cursor_at=planned.cursor_at, next_fire_at=planned.next_fire_at
        ):
            continue
        slots = list(planned.dropped)
        if planned.fire is not None and decision.run is not None:
            slot, waits = _fire(tx, decision.schedule, planned.fire, decision.run, now=now)
            slots.append(slot)
            if waits and slot.pipeline_run_id is not None:
                made[decision.schedule.id] = slot.pipeline_run_id
        elif planned.fire is not None:
            slots.append(NewSlot(execution_date=planned.fire, outcome=SlotOutcome.MISSED, reason="error"))
        schedules.write_slots(tx, decision.schedule, slots, node_id=node_id, now=now)
    return made


def _fire(
    tx: Tx, schedule: ScheduleRow, date: datetime, run: NewRun, *, now: datetime
) -> tuple[NewSlot, bool]:
    birth = _birth(tx, schedule)
    if birth.fate == "skipped":
        return NewSlot(execution_date=date, outcome=SlotOutcome.SKIPPED, reason=birth.reason), False
    (launched,) = launch.launch(tx, [_with_fate(run, birth)], None, now=now)
    slot = NewSlot(
        execution_date=date, outcome=SlotOutcome.RUN, reason=birth.reason, pipeline_run_id=launched.run.id
    )
    return slot, birth.fate == "run"


def _birth(tx: Tx, schedule: ScheduleRow) -> Birth:
    settings: Mapping[str, Any] = schedule.settings
    if not (settings.get("skip_if_previous_running") or settings.get("pipeline_run_limit") is not None):
        return Birth("run")
    scope = f"schedule:{schedule.id}"
    scopes.lock_scopes(tx, [scope])  # lock first; what is counted below stays true until we commit
    return at_birth(settings, live=scopes.running(tx, scope, waiting=True))


def _with_fate(run: NewRun, birth: Birth) -> NewRun:
    if birth.fate != "cancelled":
        return run
    return replace(run, ended=(RunStatus.CANCELLED, birth.reason or "cancelled"))
