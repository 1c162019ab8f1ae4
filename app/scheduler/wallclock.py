"""Times on a wall clock, and the instants they are in a zone whose offset changes. No cron syntax here.

Everything inside is naive: a *wall* is what the clock on the wall shows, an *instant* is naive UTC. A zone is
seen as a row of :class:`Period`, stretches of time with one offset, so that daylight saving needs no special
case: where two periods meet, the walls between their offsets are missing (a gap) or come twice (an overlap).
"""

import calendar
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

#: Walls and instants outside are never asked for: the calendar of `datetime` ends not far from here.
FIRST_YEAR, LAST_YEAR = 1900, 9000
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DayRule:
    """Which days of a month match. None is every one; weekdays count from Sunday = 0."""

    months: frozenset[int] | None = None
    days: frozenset[int] | None = None
    last_day: bool = False
    nearest_weekday: int | None = None
    #: this day, or the last one of a month that is too short for it
    clamped_day: int | None = None
    weekdays: frozenset[int] | None = None
    nth_weekdays: frozenset[tuple[int, int | Literal["l"]]] = frozenset()
    years: frozenset[int] | None = None

    def days_of(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of one month, ascending.

        A restricted day of month and a restricted weekday are alternatives, as in every cron.

        >>> DayRule(days=frozenset({1}), weekdays=frozenset({5})).days_of(2026, 5)
        (1, 8, 15, 22, 29)
        >>> DayRule(nth_weekdays=frozenset({(1, 2), (5, "l")})).days_of(2026, 5)
        (11, 29)
        """
        if self.months is not None and month not in self.months:
            return ()
        if self.years is not None and year not in self.years:
            return ()
        before_first, length = calendar.monthrange(year, month)
        if self.clamped_day is not None:
            return (min(self.clamped_day, length),)
        if self.days is None and self.weekdays is None and not self.nth_weekdays:
            return tuple(range(1, length + 1))
        if self.nearest_weekday is not None:
            return (_nearest_weekday(self.nearest_weekday, before_first, length),)
        return tuple(day for day in range(1, length + 1) if self._matches(day, before_first + day, length))

    def _matches(self, day: int, weekday: int, length: int) -> bool:
        weekday %= 7  # monthrange counts from Monday = 0, the first being day 1: this counts from Sunday = 0
        if self.nth_weekdays:
            last = day + 7 > length and (weekday, "l") in self.nth_weekdays
            return last or (weekday, (day + 6) // 7) in self.nth_weekdays
        if self.days is not None and (day in self.days or (self.last_day and day == length)):
            return True
        return self.weekdays is not None and weekday in self.weekdays


def _nearest_weekday(day: int, before_first: int, length: int) -> int:
    """The day from Monday to Friday nearest to `day` in its month (cron's `15W`)."""
    day = min(day, length)
    weekday = (before_first + day - 1) % 7
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


@dataclass(frozen=True, slots=True)
class WallTimes:
    """A recurring set of walls: on each day of `rule`, at each of `times` (seconds of the day, ascending)."""

    rule: DayRule
    times: tuple[int, ...]

    def upwards(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """The walls in [low, high), earliest first."""
        for day in self._days(low.date(), high.date()):
            start = midnight(day)
            for index in range(_index(self.times, low - start), _index(self.times, high - start)):
                yield start + timedelta(seconds=self.times[index])

    def downwards(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """The walls in [low, high), latest first."""
        for day in self._days(low.date(), high.date(), backwards=True):
            start = midnight(day)
            for index in reversed(range(_index(self.times, low - start), _index(self.times, high - start))):
                yield start + timedelta(seconds=self.times[index])

    def _days(self, first: date, last: date, *, backwards: bool = False) -> Iterator[date]:
        step = -1 if backwards else 1
        months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)[::step]
        for year, month in (divmod(number, 12) for number in months):
            for day in self.rule.days_of(year, month + 1)[::step]:
                if first <= (found := date(year, month + 1, day)) <= last:
                    yield found


def midnight(day: date) -> datetime:
    """The wall (or instant) at which a day begins, naive."""
    return datetime.combine(day, time())


def _index(times: tuple[int, ...], since_midnight: timedelta) -> int:
    """Position of the first time of day not before `since_midnight`, which may lie outside the day."""
    return bisect_left(times, since_midnight.total_seconds())


class Period(NamedTuple):
    """The instants in [start, end), where the zone is at `offset`; just before `start` it was at `before`."""

    start: datetime
    end: datetime
    offset: timedelta
    before: timedelta


def periods_from(zone: ZoneInfo, instant: datetime, last_year: int) -> Iterator[Period]:
    """The period that holds `instant` and the later ones up to the end of `last_year`."""
    for year in range(instant.year, min(last_year, LAST_YEAR) + 1):
        yield from (period for period in _periods(zone, year) if period.end > instant)


def periods_until(zone: ZoneInfo, instant: datetime, first_year: int) -> Iterator[Period]:
    """The period that holds `instant` and the earlier ones back to `first_year`, latest first."""
    for year in range(instant.year, max(first_year, FIRST_YEAR) - 1, -1):
        yield from (period for period in reversed(_periods(zone, year)) if period.start <= instant)


@lru_cache(maxsize=4096)
def _periods(zone: ZoneInfo, year: int) -> tuple[Period, ...]:
    """One year cut into periods; one that only goes on from the last year has `before` equal to `offset`."""
    first, end = midnight(date(year, 1, 1)), midnight(date(year + 1, 1, 1))
    days = [first + DAY * number for number in range((end - first).days + 1)]
    changes = [_change(zone, a, b) for a, b in pairwise(days) if _offset(zone, a) != _offset(zone, b)]
    edges = [first, *(change for change in changes if first < change < end), end]
    return tuple(
        Period(a, b, _offset(zone, a), _offset(zone, a - timedelta(seconds=1))) for a, b in pairwise(edges)
    )


def _change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first instant in (low, high] with another offset than at `low`, to the second."""
    offset = _offset(zone, low)
    seconds = int((high - low).total_seconds())
    index = bisect_left(
        range(seconds), True, key=lambda s: _offset(zone, low + timedelta(seconds=s)) != offset
    )
    return low + timedelta(seconds=index)


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    offset = instant.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None  # a ZoneInfo always knows it
    return offset
