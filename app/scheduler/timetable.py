"""When a time trigger is due: `@` names, `@every` and cron expressions in a time zone.

Pure: no clock is read, the zone database is the only file. The one module that knows croniter, which reads
the expression; the days and instants are then found by :mod:`app.scheduler.wallclock`, in microseconds.

Cron here is Mage's (5 fields, 6 with seconds last, 7 with the year; names, `L`, `5#2`, `15W`; day of month
and weekday are alternatives when both are restricted) with Debian cron's rule for daylight saving: where
minute or hour begins with `*`, slots follow the clock; any other expression is a fixed time, which runs right
after the gap that skips it, and once where the clock shows it twice. `dst_gap: skip` drops the first, and
`dst_overlap: both` keeps the second. The `@` names are cron expressions and follow the same rules.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice, product, takewhile
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter

from app.scheduler import every
from app.scheduler.cronfields import (
    DAY_OF_MONTH,
    FIELD_NAMES,
    HOUR,
    INTERVALS,
    MAX_LENGTH,
    MINUTE,
    MONTH,
    NAMED,
    SECOND,
    WEEK_STARTS,
    WEEKDAY,
    YEAR,
    InvalidInterval,
    fields_of,
    printable,
)
from app.scheduler.every import Every
from app.scheduler.wallclock import (
    FIRST_YEAR,
    LAST_YEAR,
    DayRule,
    Period,
    WallTimes,
    periods_from,
    periods_until,
)

#: A slot further away does not exist: the rarest date, a fifth Monday of February, comes within 40 years.
HORIZON_YEARS = 50
GAPS, OVERLAPS = ("next", "skip"), ("first", "both")
#: Names of the zone database that mean another zone on another machine, count leap seconds, or are no place.
_NO_ZONES = ("right/", "posix/", "localtime", "posixrules", "Factory")

_US = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN, MAX = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)

__all__ = ["INTERVALS", "NAMED", "InvalidInterval", "Timetable", "parse", "zone_named"]

Kind = Literal["once", "always_on", "calendar"]


class Interval(NamedTuple):
    """What a slot stands for: the stretch up to the next slot, and where the stretch before began.

    Mage: `interval_start_datetime`, `interval_end_datetime`, `interval_seconds`,
    `interval_start_datetime_previous`; here always the real neighbours, also for irregular expressions.
    """

    start: datetime
    end: datetime | None = None
    seconds: int | None = None
    previous_start: datetime | None = None


@dataclass(frozen=True, slots=True)
class Timetable:
    """The slots of one interval in one zone. Times go in aware and come out aware, in UTC."""

    interval: str
    zone: ZoneInfo
    kind: Kind
    walls: WallTimes | None = None
    #: a fixed time of day keeps its wall time over daylight saving; others follow the clock
    fixed: bool = False
    #: what becomes of a fixed time that the clock skips (`next`, `skip`) or shows twice (`first`, `both`)
    dst_gap: str = "next"
    dst_overlap: str = "first"
    every: Every | None = None
    #: the slots are landing times: a run starts so early that it is over by then
    lands: bool = False
    #: of an `@` name that lands: the periods, each of which holds one landing time
    periods: "Timetable | None" = None

    def after(self, t: datetime) -> datetime | None:
        """The first slot strictly after `t`; None when there is none (`@once`, `@always_on`, a year gone by).

        >>> parse("30 2 * * *", "Europe/Berlin").after(datetime(2026, 3, 29, tzinfo=UTC)).isoformat()
        '2026-03-29T01:00:00+00:00'
        """
        return next((_aware(slot) for slot in self._upwards(_instant(t))), None)

    def before(self, t: datetime) -> datetime | None:
        """The latest slot that is not after `t`.

        >>> parse("@weekly").before(datetime(2026, 11, 25, 9, tzinfo=UTC)).isoformat()
        '2026-11-22T00:00:00+00:00'
        """
        return next((_aware(slot) for slot in self._downwards(_instant(t))), None)

    def between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The slots in (after, until], earliest first, at most `limit` of them.

        >>> day = datetime(2026, 1, 1, tzinfo=UTC)
        >>> [f"{slot:%H:%M}" for slot in parse("*/25 * * * *").between(day, day.replace(hour=1), 9)]
        ['00:25', '00:50', '01:00']
        """
        return [_aware(slot) for slot in islice(self._within(after, until), limit)]

    def newest(self, until: datetime, limit: int, after: datetime) -> list[datetime]:
        """The slots in (after, until], latest first, at most `limit` of them."""
        first = _instant(after)
        found = takewhile(lambda slot: slot > first, self._downwards(_instant(until)))
        return [_aware(slot) for slot in islice(found, limit)]

    def count_between(self, after: datetime, until: datetime, limit: int = 10_000) -> int:
        """How many slots lie in (after, until], exact up to `limit`, where counting ends.

        >>> new_year = datetime(2026, 1, 1, tzinfo=UTC)
        >>> parse("* * * * *").count_between(new_year - timedelta(days=365), new_year)
        10000
        """
        if self.every is not None:
            return min(self.every.count(_instant(after), _instant(until)), limit)
        return sum(1 for _ in islice(self._within(after, until), limit))

    def interval_of(self, slot: datetime) -> Interval:
        """The interval that `slot` begins. `@once` and `@always_on` have a start only.

        >>> friday = datetime(2026, 11, 20, 9, tzinfo=UTC)
        >>> start, end, seconds, previous = parse("0 9 * * 1-5").interval_of(friday)
        >>> f"{end:%a}", seconds, f"{previous:%a}"
        ('Mon', 259200, 'Thu')
        """
        slot = slot.astimezone(UTC)  # within one zone Python subtracts what the clock shows, not what passes
        if (end := self.after(slot)) is None:
            return Interval(slot, previous_start=self.before(slot - _US))
        return Interval(slot, end, round((end - slot).total_seconds()), self.before(slot - _US))

    def _within(self, after: datetime, until: datetime) -> Iterator[datetime]:
        last = _instant(until)
        return takewhile(lambda slot: slot <= last, self._upwards(_instant(after)))

    def _upwards(self, t: datetime) -> Iterator[datetime]:
        """Slots after `t`, earliest first, as naive UTC."""
        if self.every is not None:
            yield from self.every.upwards(t, MAX.replace(tzinfo=None))
        if self.walls is None:
            return
        for period in periods_from(self.zone, t, self._years(t)[1]):
            low, high = self._walls_of(period)
            if t >= period.start:
                low = max(low, t + period.offset)
            for wall in self.walls.upwards(low, high):
                if (slot := max(wall - period.offset, period.start)) > t:
                    yield slot
                    t = slot

    def _downwards(self, t: datetime) -> Iterator[datetime]:
        """Slots up to and including `t`, latest first, as naive UTC."""
        if self.every is not None:
            yield from self.every.downwards(t, MIN.replace(tzinfo=None))
        if self.walls is None:
            return
        t += _US
        for period in periods_until(self.zone, t, self._years(t)[0]):
            low, high = self._walls_of(period)
            for wall in self.walls.downwards(low, min(high, t + period.offset)):
                if (slot := max(wall - period.offset, period.start)) < t:
                    yield slot
                    t = slot

    def _walls_of(self, period: Period) -> tuple[datetime, datetime]:
        """The walls [low, high) whose instants this period holds.

        A fixed time also takes the walls of the gap before the period (they become its start), and leaves
        out those of an overlap, which the period before has had; unless its settings say otherwise.
        """
        rule = self.dst_gap == "next" if period.before < period.offset else self.dst_overlap == "first"
        low = period.start + (period.before if self.fixed and rule else period.offset)
        return low, period.end + period.offset

    def _years(self, t: datetime) -> tuple[int, int]:
        """The first and last year of UTC worth a search from `t`."""
        if self.walls is not None and self.walls.rule.years is not None:
            return min(self.walls.rule.years) - 1, max(self.walls.rule.years) + 1
        return t.year - HORIZON_YEARS, t.year + HORIZON_YEARS


def _instant(t: datetime) -> datetime:
    if t.tzinfo is None:
        raise ValueError("a time without an offset is ambiguous; pass an aware datetime")
    if not MIN < t < MAX:  # a step from either end of the calendar, no offset can be subtracted
        return (MIN if t < MAX else MAX).replace(tzinfo=None)
    return t.astimezone(UTC).replace(tzinfo=None)


def _aware(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC)


@lru_cache(maxsize=16_384)
def parse(
    interval: str,
    timezone: str = "UTC",
    week_start: str = "sunday",
    dst_gap: str = "next",
    dst_overlap: str = "first",
    anchor: datetime | None = None,
) -> Timetable:
    """The timetable of a schedule interval: one of the `@` names or a cron expression, in an IANA zone.

    `anchor` (aware; the epoch without one) is where the slots of `@every` are counted from, and nothing else.
    Raises InvalidInterval, whose message says what is wrong with which part. Cached: a parse costs 300 µs.

    >>> parse("@once").kind, parse("0 6 * * mon-fri", "America/New_York").kind
    ('once', 'calendar')
    >>> parse("0 0 30 2 *")
    Traceback (most recent call last):
    app.scheduler.cronfields.InvalidInterval: '0 0 30 2 *' never fires: no date is day of month '30', month '2'
    """
    zone = zone_named(timezone)
    _choice("week_start", week_start, tuple(WEEK_STARTS))
    _choice("dst_gap", dst_gap, GAPS)
    _choice("dst_overlap", dst_overlap, OVERLAPS)
    if len(interval) > MAX_LENGTH:
        raise InvalidInterval(f"an interval has at most {MAX_LENGTH} characters, this one {len(interval)}")
    text = printable(" ".join(interval.split()))
    name = text.lower()
    if name == "@once":
        return Timetable(name, zone, "once")
    if name == "@always_on":
        return Timetable(name, zone, "always_on")
    if name.split(" ")[0] == every.PREFIX:
        return Timetable(name, zone, "calendar", every=_every(name, anchor or EPOCH))
    fields = fields_of(WEEK_STARTS[week_start] if name == "@weekly" else NAMED.get(name, name), text)
    fixed = not fields[MINUTE].startswith("*") and not fields[HOUR].startswith("*")
    walls = _walls(" ".join(fields), text)
    return Timetable(text, zone, "calendar", walls, fixed, dst_gap, dst_overlap)


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises InvalidInterval."""
    try:
        if name.startswith(_NO_ZONES):
            raise LookupError(name)
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # a folder of the zone database is an OSError
        raise InvalidInterval(f"unknown time zone '{printable(name)}'", hint=_zone_hint(name)) from None


@lru_cache(maxsize=1024)  # 5 ms each, and a tick meets the same wrong name in many triggers
def _zone_hint(name: str) -> str:
    near = get_close_matches(name, _zone_names(), n=1, cutoff=0.6) if len(name) < 50 else []
    return f"Did you mean '{near[0]}'?" if near else "Use an IANA name such as Europe/Berlin, or UTC."


@lru_cache(maxsize=1)
def _zone_names() -> list[str]:
    return sorted(available_timezones())


def _choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInterval(f"{key} must be {' or '.join(choices)}, not '{printable(value)}'")


def _every(name: str, anchor: datetime) -> Every:
    try:
        length = every.duration(name.removeprefix(every.PREFIX).replace(" ", ""))
    except ValueError as error:
        raise InvalidInterval(f"'{name}': {error}", hint=every.HINT) from None
    # Whole seconds: what a person reads in a log is the slot itself.
    return Every(length, _instant(anchor).replace(microsecond=0))


@lru_cache(maxsize=16_384)
def _walls(expression: str, text: str) -> WallTimes:
    try:
        cron = croniter(expression, 0.0)
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AssertionError,
    ) as error:  # its parser leaks all of these
        raise InvalidInterval(f"'{text}' is not a cron expression: {_reason(expression, error)}") from error
    rule = _rule(cron, expression.split(), text)
    seconds = _values(cron.expanded[SECOND], 60) if len(cron.expanded) > SECOND else (0,)
    return WallTimes(
        rule, _times(_values(cron.expanded[HOUR], 24), _values(cron.expanded[MINUTE], 60), seconds)
    )


def _reason(expression: str, error: Exception) -> str:
    """croniter's own words where it has some, and else the first field that it does not take alone."""
    reason = str(error).rpartition("] ")[2].removeprefix("is not acceptable").lstrip(". ")
    if reason and isinstance(error, ValueError):
        return reason
    fields = expression.split()
    for index, field in enumerate(fields):
        alone = " ".join(field if other == index else "*" for other in range(len(fields)))
        try:
            croniter(alone, 0.0)
        except (ValueError, KeyError, TypeError, IndexError, AssertionError):
            return f"{FIELD_NAMES[index]} '{field}' cannot be read"
    return "its fields do not go together"


@lru_cache(maxsize=1024)
def _times(hours: tuple[int, ...], minutes: tuple[int, ...], seconds: tuple[int, ...]) -> tuple[int, ...]:
    """Seconds of the day, ascending; shared, since `* * * * * *` has 86,400."""
    return tuple(
        hour * 3600 + minute * 60 + second for hour, minute, second in product(hours, minutes, seconds)
    )


def _values(expanded: list[Any], count: int) -> tuple[int, ...]:
    return tuple(range(count)) if "*" in expanded else tuple(sorted(expanded))


def _rule(cron: "croniter", fields: list[str], text: str) -> DayRule:
    """croniter's parse of the date fields as a DayRule; refuses what never comes and what is ambiguous."""
    days, months, weekdays = (_subset(cron.expanded[field]) for field in (DAY_OF_MONTH, MONTH, WEEKDAY))
    special = frozenset((day, n) for day, numbers in cron.nth_weekday_of_month.items() for n in numbers)
    nearest = next(iter(cron.nearest_weekday), None)
    if (special and days is not None) or (nearest is not None and weekdays is not None):
        raise InvalidInterval(
            f"'{text}': a day of month with '#', 'L' or 'W' means different things to different crons",
            hint="Use '*' for the day of month or for the day of week.",
        )
    rule = DayRule(
        months=_numbers(months),
        days=_numbers(days),
        last_day="l" in (days or ()),
        nearest_weekday=nearest,
        weekdays=None if special else _numbers(weekdays),
        nth_weekdays=special,
        years=_numbers(_subset(cron.expanded[YEAR])) if len(fields) > YEAR else None,
    )
    _check_it_comes(rule, fields, text)
    return rule


def _subset(expanded: list[Any]) -> list[Any] | None:
    return None if "*" in expanded else expanded


def _numbers(values: list[Any] | None) -> frozenset[int] | None:
    return None if values is None else frozenset(value for value in values if value != "l")


def _check_it_comes(rule: DayRule, fields: list[str], text: str) -> None:
    # 28 years hold every combination of leap year and weekday when no century is among them.
    years = sorted(rule.years) if rule.years else range(2001, 2029)
    if any(rule.days_of(year, month) for year in years for month in range(1, 13)):
        return
    asked = [(FIELD_NAMES[i], fields[i]) for i in (DAY_OF_MONTH, MONTH, WEEKDAY, YEAR) if i < len(fields)]
    parts = ", ".join(f"{name} '{value}'" for name, value in asked if value not in ("*", "?"))
    raise InvalidInterval(f"'{text}' never fires: no date is {parts}")
