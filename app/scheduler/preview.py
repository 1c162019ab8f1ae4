"""What a trigger will do: its next slots with the start of each run, and what is special about them. Pure.

From the same functions that decide: the timetable, the blackouts, when a run starts, when a trigger ends.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from app.models.rows import ScheduleRow
from app.scheduler import blackouts
from app.scheduler.catchup import due_until, next_slot, next_slot_once, starts_at
from app.scheduler.clockchanges import LIMIT, Mark, marks_between
from app.scheduler.landing import Expected
from app.scheduler.tables_of import once_at, table_of
from app.scheduler.timetable import Timetable

_US = timedelta(microseconds=1)
_NO_MARKS_BEYOND = timedelta(days=3660)


@dataclass(frozen=True, slots=True)
class Note:
    """`code` is dst_moved, dst_dropped, dst_doubled, blackout or calendar; `text` says it in words."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A slot to come. `execution_date` and `starts_at` are aware, in the trigger's zone.

    `starts_at` is when the run starts, never before the moment of asking; None: a blackout, no run.
    """

    execution_date: datetime
    starts_at: datetime | None
    notes: tuple[Note, ...] = ()


def preview(
    schedule: ScheduleRow,
    *,
    now: datetime,
    count: int,
    week_start: str = "sunday",
    expected: Expected | None = None,
) -> list[Upcoming]:
    """The next `count` slots that are not yet due at `now`, nor decided, as if the trigger were active.

    `expected` is the runtime a landing time reckons with. `@always_on` has none.
    Raises InvalidInterval, or InvalidInput for blackouts that cannot be read.
    """
    table = table_of(schedule, week_start=week_start)
    quiet = blackouts.parse(schedule.settings.get("blackouts"), table.zone.key)
    slots = list(islice(_slots(schedule, table, now), count))
    notes = _clock_notes(table, now, slots)
    found = []
    for index, slot in enumerate(slots):
        starts: datetime | None = starts_at(schedule, table, slot, expected)
        if covered := quiet.covers(slot):
            notes[index].append(Note(covered.kind, covered.text))
            starts = None
        starts = starts and max(starts, now).astimezone(table.zone)
        found.append(Upcoming(slot.astimezone(table.zone), starts, tuple(notes[index])))
    return found


def marks(
    schedule: ScheduleRow, now: datetime, days: int = 366, *, week_start: str = "sunday", limit: int = LIMIT
) -> list[Mark]:
    """Every slot that a daylight saving rule moves, drops or doubles within `days` of `now`."""
    table = table_of(schedule, week_start=week_start)
    return marks_between(table, now, now + timedelta(days=days), limit)


def _slots(schedule: ScheduleRow, table: Timetable, now: datetime) -> Iterator[datetime]:
    if table.kind == "once":
        date = once_at(schedule)
        undecided = schedule.cursor_at is None or date > schedule.cursor_at
        if undecided and next_slot_once(schedule, date):
            yield date
        return
    slot = next_slot(schedule, table, _cursor(schedule, table, now))
    while slot is not None:
        yield slot
        slot = next_slot(schedule, table, slot)


def _cursor(schedule: ScheduleRow, table: Timetable, now: datetime) -> datetime:
    """The slots to come are after this: one that its jitter still holds, or one at `start_time`, is among them."""
    due: datetime | None = now
    if schedule.cursor_at and schedule.settings.get("jitter_s") and not table.lands:
        due = due_until(schedule, table, now)
    decided = max(filter(None, (due, schedule.cursor_at)))
    return max(decided, schedule.start_time - _US) if schedule.start_time else decided


def _clock_notes(table: Timetable, now: datetime, slots: list[datetime]) -> list[list[Note]]:
    """The notes of each slot; that of a time without a slot stands at the slot after the change."""
    notes: list[list[Note]] = [[] for _slot in slots]
    if not slots or slots[0] - now > _NO_MARKS_BEYOND:
        return notes
    until = min(slots[-1] + timedelta(days=1), now + _NO_MARKS_BEYOND)
    for mark in marks_between(table, min(now, slots[0]) - timedelta(days=1), until):
        if mark.slot is None and mark.change <= now:
            continue
        # In UTC: Python calls a repeated local time unequal to everything of another zone.
        slot = mark.slot and mark.slot.astimezone(UTC)
        index = bisect_left(slots, slot or mark.change)
        if index < len(slots) and slot in (None, slots[index]):
            notes[index].append(Note(mark.code, mark.text))
    return notes
