"""Which of the due slots get a run, and what becomes of the others. Pure.

Downtime, a pause and the loss of a node look the same from here: the cursor stands behind the slots that are due.
Each of them is accounted for: a run, or a row of its own, or its share of one row with a count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import groupby
from typing import Any, Final

from app.errors import FieldError, InvalidInput
from app.models.columns import to_us
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.pipelines import trigger_settings
from app.scheduler import blackouts, landing
from app.scheduler.landing import Expected
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import EPOCH, Timetable
from app.store.slots import NewSlot

#: Dropped slots get a row each up to here; a longer stretch is one row with a count.
ROWS_EACH: Final = 20
#: Beyond this a stretch is not counted further.
COUNT_LIMIT: Final = 10_000
#: Runs that `catch_up: all` makes for one trigger before the others have their turn.
BATCH: Final = 20
#: A slot that is decided later than this was missed.
GRACE: Final = timedelta(seconds=60)
#: Of a trigger with blackouts so many of the newest due slots are looked at one by one.
SEARCHED: Final = 1000
CATCH_UP_LIMIT: Final = 100
_US = timedelta(microseconds=1)
_LANDING_LOOK: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Fire:
    """A slot that gets a run, with what its row will say."""

    date: datetime
    reason: str | None = None
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of the slots up to `cursor_at`; `more`: some that are due are left for the next round."""

    cursor_at: datetime
    fires: tuple[Fire, ...] = ()
    dropped: tuple[NewSlot, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """How a stretch of due slots is treated, and what is said of those that get no run."""

    mode: str = "latest"
    limit: int = 1
    within: timedelta | None = None
    outcome: SlotOutcome = SlotOutcome.MISSED
    reason: str = "catch_up"


def way_of(settings: Mapping[str, Any]) -> Way:
    """What the trigger itself says: `catch_up`, `catch_up_limit`, `catch_up_within`."""
    mode = settings.get("catch_up") or "latest"
    limit = settings.get("catch_up_limit") or CATCH_UP_LIMIT
    return Way(mode, limit if mode == "all" else 1, trigger_settings.within(settings))


def asked_way(mode: str, settings: Mapping[str, Any]) -> Way:
    """What somebody has said about the slots of a pause: skip, latest or all."""
    limit = settings.get("catch_up_limit") or CATCH_UP_LIMIT
    return Way(mode, limit if mode == "all" else 1, None, SlotOutcome.SKIPPED, "paused")


def starts_at(
    schedule: ScheduleRow, table: Timetable, slot: datetime, expected: Expected | None = None
) -> datetime:
    """When the run of a slot starts: before it when it is a landing time, after it by the trigger's jitter.

    The jitter is the same on every node and never reaches the next slot.
    """
    if table.lands:
        return landing.fires_at(table, slot, expected)
    window = schedule.settings.get("jitter_s")
    if not window or table.kind != "calendar":
        return slot
    following = table.after(slot)
    room_ms = int(min(window, (following - slot).total_seconds() if following else window) * 1000)
    digest = blake2b(f"{schedule.id}:{to_us(slot)}".encode(), digest_size=8).digest()
    return slot + timedelta(milliseconds=int.from_bytes(digest, "big") % max(room_ms, 1))


def judge(
    interval: str, timezone: str, settings: Mapping[str, Any], start_time: datetime | None
) -> Timetable:
    """The timetable of a definition that is to be. Raises InvalidInput; a setting's fault has its pointer."""
    probe = ScheduleRow(
        id=0,
        name="",
        pipeline_uuid="",
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.ACTIVE,
        created_at=EPOCH,
        updated_at=EPOCH,
        schedule_interval=interval,
        timezone=timezone,
        start_time=start_time,
        settings=settings,
    )
    table = table_of(probe, week_start="sunday")
    blackouts.parse(settings.get("blackouts"), timezone)
    if table.kind != "calendar" and settings.get("jitter_s"):
        message = f"{table.interval} has no jitter"
        raise InvalidInput(message, errors=[FieldError("/settings/jitter_s", message)])
    return table


def due_until(
    schedule: ScheduleRow, table: Timetable, now: datetime, expected: Expected | None = None
) -> datetime | None:
    """The latest slot whose run has had to start by `now`."""
    if table.lands:
        latest = landing.latest_due(table, now, expected)
    else:
        latest = table.before(now)
        if latest is not None and starts_at(schedule, table, latest) > now:
            latest = table.before(latest - _US)
    end = trigger_settings.ends(schedule.settings)
    return table.before(end) if end and latest and latest > end else latest


def next_slot(schedule: ScheduleRow, table: Timetable, after: datetime) -> datetime | None:
    """The first slot after a moment that is not past the trigger's end."""
    slot, end = table.after(after), trigger_settings.ends(schedule.settings)
    return None if slot is None or (end is not None and slot > end) else slot


def next_slot_once(schedule: ScheduleRow, date: datetime) -> datetime | None:
    """`date` if it is not past the trigger's end."""
    end = trigger_settings.ends(schedule.settings)
    return None if end is not None and date > end else date


def next_look(
    schedule: ScheduleRow, table: Timetable, after: datetime, now: datetime, expected: Expected | None = None
) -> datetime | None:
    """When to look at a trigger again whose slots are decided up to `after`; None: it has ended.

    How early a landing run starts is known better later: it is looked at again when half the wait is over.
    """
    slot = next_slot(schedule, table, after)
    if slot is None:
        return None
    at = starts_at(schedule, table, slot, expected)
    if table.lands and at - now > 2 * _LANDING_LOOK:
        at = now + max(_LANDING_LOOK, (at - now) / 2)
    return at


def settle(
    schedule: ScheduleRow,
    table: Timetable,
    cursor: datetime,
    *,
    now: datetime,
    expected: Expected | None = None,
) -> Settled | None:
    """Decide the due slots after `cursor`, or the next stretch of them; None when none is due."""
    last = due_until(schedule, table, now, expected)
    if last is None or last <= cursor:
        return None
    end, way = last, way_of(schedule.settings)
    asked = schedule.missed_until
    if schedule.missed_policy and asked is not None:
        of_pause = table.before(min(last, asked))
        if of_pause is not None and of_pause > cursor:
            end, way = of_pause, asked_way(schedule.missed_policy, schedule.settings)
    settled = _sort_out(schedule, table, way, (cursor, end), now=now, expected=expected)
    return Settled(settled.cursor_at, settled.fires, settled.dropped, settled.more or end < last)


def settle_once(schedule: ScheduleRow, table: Timetable, date: datetime, *, now: datetime) -> Settled:
    """The same for the one slot of `@once`."""
    way = way_of(schedule.settings)
    if schedule.missed_policy and schedule.missed_until and date <= schedule.missed_until:
        way = asked_way(schedule.missed_policy, schedule.settings)
    covered = blackouts.parse(schedule.settings.get("blackouts"), table.zone.key)
    chosen, rows = _choose(schedule, table, way, [date], covered, now)
    return Settled(date, tuple(_fire(schedule, table, slot, None, now) for slot in chosen), tuple(rows))


def _sort_out(
    schedule: ScheduleRow,
    table: Timetable,
    way: Way,
    stretch: tuple[datetime, datetime],
    *,
    now: datetime,
    expected: Expected | None,
) -> Settled:
    cursor, end = stretch
    covered = blackouts.parse(schedule.settings.get("blackouts"), table.zone.key)
    size = max(way.limit, SEARCHED if covered.rules else 1)
    newest = table.newest(end, size + 1, cursor)  # one more tells whether there are older ones
    window = list(reversed(newest[:size]))
    chosen, rows = _choose(schedule, table, way, window, covered, now)
    if more := len(chosen) > BATCH:
        end = chosen[BATCH - 1]
        chosen = chosen[:BATCH]
        rows = _choose_rows([slot for slot in window if slot <= end], set(chosen), covered, way)
    head: tuple[NewSlot, ...] = ()
    if len(newest) > size:
        head = dropped(table, cursor, window[0] - _US, reason=way.reason, outcome=way.outcome)
    fires = tuple(_fire(schedule, table, slot, expected, now) for slot in chosen)
    return Settled(end, fires, (*head, *rows), more)


def _choose(
    schedule: ScheduleRow,
    table: Timetable,
    way: Way,
    window: Sequence[datetime],
    covered: blackouts.Blackouts,
    now: datetime,
) -> tuple[list[datetime], list[NewSlot]]:
    """Of the newest due slots those that get a run, oldest first, and rows for the others."""
    free = [slot for slot in window if covered.covers(slot) is None]

    def on_time(slot: datetime) -> bool:
        return now - (slot if table.lands else starts_at(schedule, table, slot)) <= GRACE

    chosen = [] if way.mode == "skip" else free[-way.limit :]
    if way.mode == "none":
        chosen = [slot for slot in chosen if on_time(slot)]
    elif way.within is not None:
        chosen = [slot for slot in chosen if now - slot <= way.within or on_time(slot)]
    return chosen, _choose_rows(window, set(chosen), covered, way)


def _choose_rows(
    window: Iterable[datetime], chosen: set[datetime], covered: blackouts.Blackouts, way: Way
) -> list[NewSlot]:
    """Rows of the slots that get no run; neighbours of one kind share a row when they are many."""

    def kind(slot: datetime) -> tuple[bool, SlotOutcome, str, str | None]:
        if slot in chosen:
            return True, SlotOutcome.RUN, "", None
        black = covered.covers(slot)
        if black is None or way.mode == "skip":
            return False, way.outcome, way.reason, None
        return False, SlotOutcome.SKIPPED, black.kind, black.text

    rows: list[NewSlot] = []
    for (runs, outcome, reason, text), group in groupby(window, kind):
        if not runs:
            detail = {"text": text} if text else None
            rows += _rows(list(group), outcome, reason, detail)
    return rows


def _rows(
    dates: Sequence[datetime], outcome: SlotOutcome, reason: str, detail: Mapping[str, Any] | None
) -> list[NewSlot]:
    if len(dates) <= ROWS_EACH:
        return [NewSlot(execution_date=date, outcome=outcome, reason=reason, detail=detail) for date in dates]
    return [
        NewSlot(
            execution_date=dates[0],
            outcome=outcome,
            reason=reason,
            detail=detail,
            until=dates[-1],
            count=len(dates),
        )
    ]


def _fire(
    schedule: ScheduleRow, table: Timetable, slot: datetime, expected: Expected | None, now: datetime
) -> Fire:
    if table.lands:
        known = expected or Expected()
        return Fire(slot, known.reason, {"expected_s": known.seconds, "runs": known.runs})
    detail: dict[str, Any] = {}
    starts = starts_at(schedule, table, slot)
    if starts != slot:
        detail["starts_at"] = starts.isoformat()
    if now - starts > GRACE:
        detail["late_s"] = round((now - starts).total_seconds())
    return Fire(slot, None, detail or None)


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
        return tuple(_rows(dates, outcome, reason, None))
    count = table.count_between(after, until, COUNT_LIMIT)
    last = table.before(until)
    return (NewSlot(execution_date=dates[0], outcome=outcome, reason=reason, until=last, count=count),)


@dataclass(frozen=True, slots=True)
class Choice:
    """What an answer to "what about the missed slots?" would do."""

    runs: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Missed:
    """The slots that were due in a pause. `count` is exact up to 10,000, then `capped`."""

    count: int
    first: datetime | None
    last: datetime | None
    capped: bool
    choices: Mapping[str, Choice]


#: What may be said about missed slots at a resume.
MODES: Final = ("skip", "latest", "all")
NOTHING: Final = Missed(0, None, None, False, {mode: Choice(0, 0) for mode in MODES})


def missed(schedule: ScheduleRow, table: Timetable, *, now: datetime) -> Missed:
    """What resuming a paused trigger at `now` has to decide about, and what each choice would do."""
    cursor, last = schedule.cursor_at, due_until(schedule, table, now)
    if table.kind != "calendar" or cursor is None or last is None or last <= cursor:
        return NOTHING
    count = table.count_between(cursor, last, COUNT_LIMIT)
    choices = {}
    for mode in MODES:
        runs = _runs(schedule, table, asked_way(mode, schedule.settings), (cursor, last), now)
        choices[mode] = Choice(runs, count - runs)
    return Missed(count, table.after(cursor), last, count >= COUNT_LIMIT, choices)


def _runs(
    schedule: ScheduleRow, table: Timetable, way: Way, stretch: tuple[datetime, datetime], now: datetime
) -> int:
    covered = blackouts.parse(schedule.settings.get("blackouts"), table.zone.key)
    size = max(way.limit, SEARCHED if covered.rules else 1)
    window = list(reversed(table.newest(stretch[1], size, stretch[0])))
    return len(_choose(schedule, table, way, window, covered, now)[0])
