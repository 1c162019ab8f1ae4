"""What the clock changes of a zone do to a timetable: the slots that a rule moves, drops or doubles. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal

from app.scheduler.timetable import Timetable
from app.scheduler.wallclock import Period, periods_from

Code = Literal["dst_moved", "dst_dropped", "dst_doubled"]
#: `* 2 * * * *` has 3,600 walls in one gap; more than this nobody reads.
LIMIT = 1000
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Mark:
    """One wall time that a clock change affects, and what becomes of it.

    `slot` (aware, in the zone) is where it has gone (moved), the first of the two (dropped, `first`), the
    second of the two (doubled), and None where there is no slot: the clock does not show that time.
    """

    code: Code
    wall: datetime
    change: datetime
    slot: datetime | None
    text: str


def marks_between(table: Timetable, after: datetime, until: datetime, limit: int = LIMIT) -> list[Mark]:
    """The marks of all clock changes in (after, until], in the order of the changes.

    >>> from app.scheduler.timetable import parse
    >>> year = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    >>> [mark.text for mark in marks_between(parse("30 2 * * *", "Europe/Berlin", dst_overlap="both"), *year)]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['2026-03-29 02:30 does not exist in Europe/Berlin: its slot is 03:00+02:00, right after the gap',
     '2026-10-25 02:30 comes twice in Europe/Berlin: this is the second, at +01:00']
    """
    return list(islice(_marks(table, after.astimezone(UTC), until.astimezone(UTC)), limit))


def _marks(table: Timetable, after: datetime, until: datetime) -> Iterator[Mark]:
    if table.walls is None:
        return
    for period in periods_from(table.zone, after.replace(tzinfo=None), until.year):
        change = period.start.replace(tzinfo=UTC)
        if change > until:
            return
        if change <= after or period.offset == period.before or _is_even(table, period):
            continue
        walls = sorted((period.start + period.before, period.start + period.offset))
        for wall in table.walls.upwards(*walls):
            yield (
                _gap(table, wall, change) if period.before < period.offset else _overlap(table, wall, period)
            )


def _is_even(table: Timetable, period: Period) -> bool:
    """Whether the slots come every hour at the same minutes, so that no one can tell one hour from another."""
    assert table.walls is not None  # asked for walls only
    hours = {seconds // 3600 for seconds in table.walls.times}
    return not table.fixed and len(hours) == 24 and (period.offset - period.before) % _HOUR == timedelta()


def _gap(table: Timetable, wall: datetime, change: datetime) -> Mark:
    missing = f"{_shown(wall)} does not exist in {table.zone.key}"
    if table.fixed and table.dst_gap == "next":
        slot = change.astimezone(table.zone)
        text = f"{missing}: its slot is {_clock(slot)}, right after the gap"
        return Mark("dst_moved", wall, change, slot, text)
    return Mark("dst_dropped", wall, change, None, f"{missing}: it has no slot that day")


def _overlap(table: Timetable, wall: datetime, period: Period) -> Mark:
    change = period.start.replace(tzinfo=UTC)
    first, second = (
        (wall - offset).replace(tzinfo=UTC).astimezone(table.zone)
        for offset in (period.before, period.offset)
    )
    twice = f"{_shown(wall)} comes twice in {table.zone.key}"
    if table.fixed and table.dst_overlap == "first":
        text = f"{twice}: the first, at {_offset(first)}, has the slot, the second, at {_offset(second)}, has none"
        return Mark("dst_dropped", wall, change, first, text)
    return Mark("dst_doubled", wall, change, second, f"{twice}: this is the second, at {_offset(second)}")


def _shown(wall: datetime) -> str:
    return f"{wall:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def _clock(slot: datetime) -> str:
    return f"{slot:%H:%M:%S}".removesuffix(":00") + _offset(slot)


def _offset(slot: datetime) -> str:
    return slot.isoformat()[-6:]
