"""The tick: every due slot of every trigger gets its one row, and a run where it should have one.

`plan` decides, purely (which of several due slots run is `catchup`'s to say); `decide` tells the store: one
transaction whose compare-and-set on each trigger makes it happen once, however many nodes tick.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.models.rows import ScheduleRow
from app.models.states import SlotOutcome
from app.scheduler import blackouts, catchup
from app.scheduler.catchup import Fire
from app.scheduler.landing import Expected
from app.scheduler.tables_of import once_at
from app.scheduler.timetable import Timetable
from app.store import births, launch, pausing, slots, waits
from app.store.db import Tx
from app.store.launch import NewRun
from app.store.slots import NewSlot

#: `@always_on` starts no run sooner than this after the one before was made.
ALWAYS_ON_S = 1.0
#: After failures it waits, twice as long after each, up to this.
BACK_OFF_S = 60.0
#: So many failures in a row are counted: more would not make it wait longer.
FAILURES = 7
#: `@always_on` looks so often whether a blackout is over.
BLACKOUT_S = 60.0
_US = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Recent:
    """What a trigger's runs have been like lately; only `@always_on` and landing times ask."""

    live: bool = False
    last_end: datetime | None = None
    #: how many of its newest runs in a row did not complete
    failures: int = 0
    expected: Expected | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trigger does now: `fires` get runs, `dropped` are the rows of slots that do not."""

    cursor_at: datetime | None
    next_fire_at: datetime | None
    fires: tuple[Fire, ...] = ()
    dropped: tuple[NewSlot, ...] = ()
    #: set by a first look that lets the period which is under way have its run
    initial: bool = False


def first_look(schedule: ScheduleRow, table: Timetable, *, now: datetime, enabled: bool = False) -> Plan:
    """Where a trigger begins that was made or changed at `now`: an edit never fires the past.

    `enabled`: it was switched on; then `create_initial_pipeline_run` gives the period under way its run.
    """
    if table.kind != "calendar":
        waits = schedule.start_time and schedule.start_time > now and not table.lands
        return Plan(schedule.cursor_at, schedule.start_time if waits else now)
    if enabled and (current := _current(schedule, table, now)) is not None:
        return Plan(current - _US, now, initial=True)
    cursor = max(filter(None, (schedule.cursor_at, now)))
    if schedule.start_time and schedule.start_time > cursor:
        cursor = schedule.start_time - _US  # a slot at start_time itself is due
    return Plan(cursor, catchup.next_look(schedule, table, cursor, now))


def _current(schedule: ScheduleRow, table: Timetable, now: datetime) -> datetime | None:
    """The slot of the period under way, if it is to have a run at once and has no row."""
    if not schedule.settings.get("create_initial_pipeline_run") or table.lands:
        return None  # a landing run of this period is still to come anyway
    slot = catchup.due_until(schedule, table, now)
    early = max(
        filter(None, (schedule.cursor_at, schedule.start_time and schedule.start_time - _US)), default=None
    )
    return None if slot is None or (early is not None and slot <= early) else slot


def plan(schedule: ScheduleRow, table: Timetable, *, now: datetime, recent: Recent | None = None) -> Plan:
    """What is due of a trigger."""
    recent = recent or Recent()
    if table.kind == "once":
        return _plan_once(schedule, table, now)
    if table.kind == "always_on":
        return _plan_always_on(schedule, table, now=now, recent=recent)
    cursor = schedule.cursor_at or now
    settled = catchup.settle(schedule, table, cursor, now=now, expected=recent.expected)
    if settled is None:
        look = catchup.next_look(schedule, table, cursor, now, recent.expected)
        # Nothing was due: looked at again at once it would be no different.
        return Plan(schedule.cursor_at, max(look, now + timedelta(seconds=1)) if look else None)
    at = settled.cursor_at
    look = now if settled.more else catchup.next_look(schedule, table, at, now, recent.expected)
    return Plan(at, look, settled.fires, settled.dropped)


def _plan_once(schedule: ScheduleRow, table: Timetable, now: datetime) -> Plan:
    date, cursor = once_at(schedule), schedule.cursor_at
    if (cursor is not None and date <= cursor) or catchup.next_slot_once(schedule, date) is None:
        return Plan(cursor or date - _US, None)  # a cursor says that it was looked at
    if date > now and not table.lands:
        return Plan(cursor, date)
    settled = catchup.settle_once(schedule, table, date, now=now)
    return Plan(date, None, settled.fires, settled.dropped)


def back_off(failures: int) -> timedelta:
    """How long `@always_on` waits after so many failures in a row.

    >>> [back_off(n).total_seconds() for n in (0, 1, 2, 6, 7, 99)]
    [0.0, 1.0, 2.0, 32.0, 60.0, 60.0]
    """
    return timedelta(seconds=min(2.0 ** (min(failures, FAILURES) - 1), BACK_OFF_S) if failures else 0.0)


def _plan_always_on(schedule: ScheduleRow, table: Timetable, *, now: datetime, recent: Recent) -> Plan:
    """The next run follows the end of the one before, which is its execution date: two nodes agree on it."""
    again = now + timedelta(seconds=ALWAYS_ON_S)
    cursor, last_end = schedule.cursor_at, recent.last_end
    if recent.live:
        return Plan(cursor, again)
    enabled = schedule.last_enabled_at or schedule.created_at
    if last_end is not None and last_end >= enabled and now < (waits := last_end + back_off(recent.failures)):
        return Plan(cursor, waits)
    if catchup.next_slot_once(schedule, now) is None:
        return Plan(cursor or enabled - _US, None)  # as above
    if blackouts.parse(schedule.settings.get("blackouts"), table.zone.key).covers(now):
        return Plan(cursor, now + timedelta(seconds=BLACKOUT_S))
    date = max(last_end, enabled) if last_end else enabled
    if cursor is not None and date <= cursor:
        # The slot before got no run, or a clock was set back: this one is still another, and the next.
        date = cursor + _US
    return Plan(date, again, (Fire(date),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A planned trigger with the runs that are ready to be made for its slots.

    `runs` are made unless a limit, looked at under its lock, says otherwise. A slot without one: its pipeline
    is broken.
    """

    schedule: ScheduleRow
    plan: Plan
    runs: Mapping[datetime, NewRun] = field(default_factory=dict)


def decide(tx: Tx, decisions: list[Decision], *, node_id: str, now: datetime) -> dict[int, list[int]]:
    """Write decisions; returns trigger id -> ids of the runs that now wait.

    A trigger that somebody else has moved on meanwhile is left out: its slots are decided. While everything is
    paused nothing is.
    """
    if pausing.paused_for_tick(tx):
        return {}
    moves = [(d.schedule, d.plan.cursor_at, d.plan.next_fire_at) for d in decisions]
    moved = slots.advance(tx, moves)
    ours = sorted((d for d in decisions if d.schedule.id in moved), key=lambda d: d.schedule.id)
    made: dict[int, list[int]] = {}
    rows = [(d.schedule, slot) for d in ours for slot in d.plan.dropped]
    rows += [
        (d.schedule, _without_run(fire)) for d in ours for fire in d.plan.fires if fire.date not in d.runs
    ]
    fires = [(d, fire, d.runs[fire.date]) for d in ours for fire in d.plan.fires if fire.date in d.runs]
    # Scopes after the triggers' rows and all at once, as everywhere: what is counted below stays true.
    caps = births.lock(tx, [run for _d, _fire, run in fires])
    free = [one for one in fires if one[2].judged is None]
    launched = launch.launch(tx, [run for _d, _fire, run in free], None, now=now) if free else []
    waiting = {run.id: launch.scopes_of_new(run) for _d, _fire, run in free}
    for (decision, fire, _run), one in zip(free, launched, strict=True):
        rows.append((decision.schedule, _with_run(fire, None, one.run.id)))
        made.setdefault(decision.schedule.id, []).append(one.run.id)
    for decision, fire, run in (one for one in fires if one[2].judged is not None):
        slot, is_waiting = _fire(tx, caps, fire, run, now=now)  # one by one: those before it count
        rows.append((decision.schedule, slot))
        if is_waiting and slot.pipeline_run_id is not None:
            waiting[run.id] = launch.scopes_of_new(run)
            made.setdefault(decision.schedule.id, []).append(slot.pipeline_run_id)
    slots.write_all_slots(tx, rows, node_id=node_id, now=now)
    waits.note(tx, waiting)
    return made


def _without_run(fire: Fire) -> NewSlot:
    return NewSlot(execution_date=fire.date, outcome=SlotOutcome.MISSED, reason="error", detail=fire.detail)


def _with_run(fire: Fire, reason: str | None, run_id: int) -> NewSlot:
    return NewSlot(
        execution_date=fire.date,
        outcome=SlotOutcome.RUN,
        reason=reason or fire.reason,
        detail=fire.detail,
        pipeline_run_id=run_id,
    )


def _fire(tx: Tx, caps: Mapping[str, int], fire: Fire, run: NewRun, *, now: datetime) -> tuple[NewSlot, bool]:
    birth = births.judge(tx, run, caps)
    detail = {**(fire.detail or {}), **(birth.detail or {})} or None
    if birth.fate == "skipped":
        slot = NewSlot(
            execution_date=fire.date, outcome=SlotOutcome.SKIPPED, reason=birth.reason, detail=detail
        )
        return slot, False
    births.make_room(tx, run, birth, now=now)
    (launched,) = launch.launch(tx, [replace(run.born(birth), judged=None)], None, now=now)
    return _with_run(replace(fire, detail=detail), birth.reason, launched.run.id), birth.fate == "run"
