"""Landing time: a slot says when the run is to be over, and the run starts as much earlier as it will take.

Pure. Mage: `landing_time_enabled`, `should_schedule`. The execution date is the landing time: for the `@`
names what `start_time` shows within the hour, day, week, month or year (a day 31 is the last day of a shorter
month); for `@once` `start_time` itself; for cron and `@every` each slot.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from app.scheduler import timetable
from app.scheduler.timetable import InvalidInterval, Timetable
from app.scheduler.wallclock import DayRule, WallTimes

#: So many of the latest runs say how long the next one takes (Mage).
HISTORY = 7
_LONGEST_S = 366 * 86_400
_US = timedelta(microseconds=1)


class Expected(NamedTuple):
    """How long a run will take: whole seconds, judged by `runs` runs; with 0 runs nobody knows."""

    seconds: int = 0
    runs: int = 0

    @property
    def reason(self) -> str:
        """As it stands on the slot.

        >>> Expected(412, 7).reason, Expected().reason
        ('expected 412 s from 7 runs', 'no completed run yet: starts when its period begins')
        """
        if not self.runs:
            return "no completed run yet: starts when its period begins"
        return f"expected {self.seconds} s from {self.runs} run{'s' if self.runs > 1 else ''}"


def expected(runtimes: Sequence[float]) -> Expected:
    """The expectation from the seconds that completed runs took, the latest first; up to 7 count.

    A runtime is `started_at` to `completed_at`. Mage counts from `created_at`, so that a run that waited for
    a place makes the next one start earlier, into the same queue: waiting is no property of the pipeline.
    What is no length of time (a clock was set back) does not count.

    >>> expected([400, 410, 390]), expected([10]), expected([])
    (Expected(seconds=405, runs=3), Expected(seconds=10, runs=1), Expected(seconds=0, runs=0))
    """
    known = [seconds for seconds in runtimes if 0 <= seconds < math.inf][:HISTORY]
    if not known:
        return Expected()
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    seconds = math.ceil(statistics.fmean(known)) + math.ceil(spread / 2)
    return Expected(min(seconds, _LONGEST_S), len(known))


def fires_at(table: Timetable, slot: datetime, expected: Expected | None) -> datetime:
    """When the run that is to land at `slot` starts; without a history, when the period of the slot begins.

    That period begins at the slot before, for an `@` name with its hour, day, week, month or year, and for
    `@once` with the calendar: such a run is due at once.

    >>> daily = timetable.parse("0 6 * * *")
    >>> six = datetime(2026, 5, 1, 6, tzinfo=timetable.UTC)
    >>> f"{fires_at(daily, six, Expected(600, 7)):%d %H:%M}", f"{fires_at(daily, six, None):%d %H:%M}"
    ('01 05:50', '30 06:00')
    """
    if expected is not None and expected.runs:
        return slot.astimezone(UTC) - timedelta(seconds=expected.seconds)
    return (table.periods or table).before(slot.astimezone(UTC) - _US) or timetable.MIN


def latest_due(table: Timetable, now: datetime, expected: Expected | None) -> datetime | None:
    """The latest slot whose run has had to start by `now`: `fires_at(slot) <= now < fires_at(the next)`."""
    if expected is not None and expected.runs:
        return table.before(now.astimezone(UTC) + timedelta(seconds=expected.seconds))
    end = (table.periods or table).after(now)
    return table.before(end) if end else table.before(now)


def landing_table(table: Timetable, start_time: datetime | None) -> Timetable:
    """The landing times of an interval, as a timetable. Raises InvalidInterval where there can be none."""
    if table.kind == "always_on":
        raise InvalidInterval("@always_on has no landing time", hint="Take landing_time_enabled out.")
    named = table.interval.lower() in timetable.NAMED
    if start_time is None and (named or table.kind == "once"):
        raise InvalidInterval(
            f"landing_time_enabled with {table.interval} needs a start_time",
            hint="start_time then says when the run is to be over, each hour, day, week or month.",
        )
    if not named or start_time is None:
        return replace(table, lands=True)
    walls = _walls(timetable.NAMED[table.interval.lower()], start_time.astimezone(table.zone))
    return replace(table, walls=walls, lands=True, periods=table)


def _walls(expression: str, local: datetime) -> WallTimes:
    """The walls that are in their period where `local` is in its own; `expression` tells the period."""
    _minute, hour, day, month, weekday = expression.split()
    within_hour = local.minute * 60 + local.second
    if hour == "*":
        return WallTimes(DayRule(), tuple(number * 3600 + within_hour for number in range(24)))
    rule = DayRule()
    if weekday != "*":
        rule = DayRule(weekdays=frozenset({local.isoweekday() % 7}))
    elif day != "*":
        months = None if month == "*" else frozenset({local.month})
        rule = DayRule(months=months, clamped_day=local.day)
    return WallTimes(rule, (local.hour * 3600 + within_hour,))
