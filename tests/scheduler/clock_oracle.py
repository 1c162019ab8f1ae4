"""When a cron expression is due, by looking at the clock on the wall every minute. It shares no code with ours.

The rules, in words. Somebody stands before the clock of a zone and looks once a minute.
1. An expression whose minute or hour begins with `*` is due whenever the clock shows a time that it names.
2. Any other expression is a fixed time. It is due when the clock shows it, and
   a. when the clock jumps forward over it: at once, at the minute that the clock shows next (`next`), or not at
      all (`skip`);
   b. when the clock has been set back and shows it again: not again (`first`), or again (`both`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

MINUTE = timedelta(minutes=1)
FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

#: Every kind of field, most of them near the hours at which clocks are changed.
EXPRESSIONS = (
    "* * * * *",
    "*/5 * * * *",
    "*/7 * * * *",
    "*/30 * * * *",
    "0 * * * *",
    "30 * * * *",
    "15,45 * * * *",
    "5-10 * * * *",
    "*/15 2 * * *",
    "*/20 0-4 * * *",
    "0 */2 * * *",
    "30 */3 * * *",
    "0 */5 * * 0,6",
    "* 1 * * *",
    "*/10 23,0 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "15 2 * * *",
    "30 2 * * *",
    "59 2 * * *",
    "0 3 * * *",
    "1 3 * * *",
    "59 23 * * *",
    "0,15,30,45 0,1,2,3 * * *",
    "0-59 2 * * *",
    "5,35 0-23 * * *",
    "0 22-23/1 * * *",
    "30 1 * * sun",
    "0 2 * mar,oct,nov 0",
    "30 0 L * *",
    "30 2 * * 0#2",
    "30 1 * * L0",
    "45 2 29-31 * sat",
    "30 2 * * * 0 2020-2037",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
)
POLICIES = tuple((gap, overlap) for gap in ("next", "skip") for overlap in ("first", "both"))

Minute = tuple[datetime, datetime]


@dataclass(frozen=True)
class Change:
    """A clock change: the first instant after it in a zone that has it."""

    zone: str
    at: datetime


def offset(zone: ZoneInfo, at: datetime) -> timedelta:
    found = at.astimezone(zone).utcoffset()
    assert found is not None
    return found


def changes(name: str, step: timedelta = timedelta(days=7)) -> Iterator[tuple[datetime, timedelta]]:
    """(first instant after it, shift) of every change of a zone from 2020 to 2037."""
    zone = ZoneInfo(name)
    looks = [FIRST + step * number for number in range((LAST - FIRST) // step)]
    offsets = [offset(zone, look) for look in looks]
    for (low, before), (high, after) in pairwise(zip(looks, offsets, strict=True)):
        if before == after:
            continue
        while high - low > MINUTE:
            middle = low + MINUTE * ((high - low) // MINUTE // 2)
            low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
        yield high, after - before


@cache
def distinct_changes() -> tuple[Change, ...]:
    """One zone for each pair of local wall time and shift that the zone database has, in a fixed order."""
    found: dict[tuple[datetime, timedelta], Change] = {}
    for name in sorted(available_timezones()):
        for at, shift in changes(name):
            wall = at.astimezone(ZoneInfo(name)).replace(tzinfo=None) - shift
            found.setdefault((wall, shift), Change(name, at))
    return tuple(found[key] for key in sorted(found))


def minutes(change: Change, hours: int = 36, before: int = 4) -> list[Minute]:
    """(instant, wall) of every minute around a change, from `before` hours earlier on."""
    zone = ZoneInfo(change.zone)
    start = change.at - timedelta(hours=hours + before)
    instants = (start + MINUTE * number for number in range((2 * hours + before) * 60 + 1))
    return [(instant, instant.astimezone(zone).replace(tzinfo=None)) for instant in instants]


def values(field: str, low: int, high: int, names: list[str] = []) -> frozenset[int]:  # noqa: B006
    """The numbers of a field without `L` and `#`."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        for number, name in enumerate(names, start=low):
            span = span.replace(name, str(number))
        first, _, last = ("*", "", "") if span == "*" else span.partition("-")
        if first == "*":
            found.update(range(low, high + 1, int(step or 1)))
        else:
            found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return frozenset(found)


class Expression:
    """A cron expression as a question to a wall: is it you?"""

    def __init__(self, text: str) -> None:
        minute, hour, self.day, self.month, self.weekday, *rest = NAMES.get(text, text).split()
        self.fixed = not (minute.startswith("*") or hour.startswith("*"))
        self.minutes, self.hours = values(minute, 0, 59), values(hour, 0, 23)
        self.years = values(rest[1], 1970, 2099) if len(rest) > 1 else None
        self.dates: dict[date, bool] = {}

    def names(self, wall: datetime) -> bool:
        if wall.hour not in self.hours or wall.minute not in self.minutes:
            return False
        day = wall.date()
        if day not in self.dates:
            self.dates[day] = self.names_day(day)
        return self.dates[day]

    def names_day(self, day: date) -> bool:
        if day.month not in values(self.month, 1, 12, MONTHS):
            return False
        if self.years is not None and day.year not in self.years:
            return False
        if self.day == "*":
            return self.weekday == "*" or self.names_weekday(day)
        return self.names_number(day) or (self.weekday != "*" and self.names_weekday(day))

    def names_number(self, day: date) -> bool:
        if self.day == "L":
            return (day + timedelta(days=1)).month != day.month
        return day.day in values(self.day, 1, 31)

    def names_weekday(self, day: date) -> bool:
        weekday = day.isoweekday() % 7
        if self.weekday.startswith("L"):
            return weekday == int(self.weekday[1:]) and (day + timedelta(days=7)).month != day.month
        which, _, number = self.weekday.partition("#")
        return weekday in values(which, 0, 6, DAYS) and number in ("", str((day.day + 6) // 7))


def due(expression: Expression, looks: list[Minute], gap: str, overlap: str) -> list[datetime]:
    """The instants at which the expression is due, for somebody who looks at these minutes."""
    return due_of(expression, looks, [expression.names(wall) for _instant, wall in looks], gap, overlap)


def due_of(
    expression: Expression, looks: list[Minute], named: list[bool], gap: str, overlap: str
) -> list[datetime]:
    """The same for one who has noted at which of the minutes the clock shows a time of the expression."""
    if not expression.fixed:
        return [instant for (instant, _wall), is_named in zip(looks, named, strict=True) if is_named]
    found: list[datetime] = []
    highest = previous = looks[0][1] - MINUTE
    for (instant, wall), is_named in zip(looks, named, strict=True):
        is_due = is_named and (overlap == "both" or wall > highest)
        if gap == "next" and wall - previous > MINUTE:  # the clock has jumped over some minutes
            jumped = range(1, (wall - previous) // MINUTE)
            is_due = is_due or any(expression.names(previous + MINUTE * number) for number in jumped)
        if is_due:
            found.append(instant)
        previous, highest = wall, max(highest, wall)
    return found
