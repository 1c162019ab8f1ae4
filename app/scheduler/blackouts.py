"""Times at which a trigger does not fire: date ranges, weekdays, times of day, holiday calendars.

Pure but for the `holidays` package, which is imported when a rule first names a calendar. A rule's conditions
hold together, a slot that any rule covers is not run, and everything is read in the trigger's zone.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from app.errors import FieldError, InvalidInput
from app.scheduler.blackout_rules import MAX_RULES, Faults, Rule, read_rule
from app.scheduler.timetable import zone_named

POINTER = "/settings/blackouts"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Blackout:
    """Why a slot is not run. `kind` is the slot's reason; `rule` the position of the rule, from 0."""

    kind: Literal["blackout", "calendar"]
    text: str
    name: str | None = None
    rule: int = 0


@dataclass(frozen=True, slots=True)
class Blackouts:
    """The rules of one trigger in its zone."""

    zone: ZoneInfo
    rules: tuple[Rule, ...] = ()

    def covers(self, slot: datetime) -> Blackout | None:
        """The first rule that covers `slot` (aware), as a reason; None when the slot may run.

        >>> quiet = parse([{"weekdays": ["sat", "sun"], "name": "weekend"}], "Asia/Tokyo")
        >>> quiet.covers(datetime.fromisoformat("2026-11-27T15:00Z")).text
        "blackout 'weekend': sat, sun"
        >>> quiet.covers(datetime.fromisoformat("2026-11-27T14:59Z")) is None
        True
        """
        for rule in self.rules:
            if (what := _covered(rule, slot, self.zone)) is not None:
                kind: Literal["blackout", "calendar"] = "calendar" if rule.calendar else "blackout"
                named = f" '{rule.name}'" if rule.name else ""
                return Blackout(kind, f"{kind}{named}: {what}", rule.name, rule.index)
        return None


def parse(value: object, zone: str = "UTC", *, pointer: str = POINTER) -> Blackouts:
    """The rules of the setting `blackouts`, a list of mappings; None is no rule.

    Raises InvalidInput that names every fault by its JSON pointer, which begins with `pointer`. Cached: for
    the same value the calendars and dates are read once.
    """
    if not value:
        return Blackouts(zone_named(zone))
    try:
        key = json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise _invalid([FieldError(pointer, "must be a list of rules of plain values")]) from None
    return _parse(key, zone, pointer)


def _plain(value: object) -> str:
    if isinstance(value, date):  # a datetime is one too; YAML makes both
        return value.isoformat()
    raise TypeError


@lru_cache(maxsize=4096)
def _parse(text: str, zone: str, pointer: str) -> Blackouts:
    found, place = json.loads(text), zone_named(zone)
    if not isinstance(found, list) or len(found) > MAX_RULES:
        raise _invalid([FieldError(pointer, f"must be a list of at most {MAX_RULES} rules")])
    faults: list[FieldError] = []
    rules = []
    for index, entry in enumerate(found):
        if isinstance(entry, Mapping):
            here = Faults(faults, f"{pointer}/{index}")
            rules.append(read_rule(entry, index, place, here))
        else:
            faults.append(
                FieldError(f"{pointer}/{index}", "must be a mapping such as {weekdays: [sat, sun]}")
            )
    if faults:
        raise _invalid(faults)
    return Blackouts(place, tuple(rules))


def _invalid(faults: list[FieldError]) -> InvalidInput:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidInput(
        f"{faults[0].pointer}: {faults[0].message}{more}",
        hint="A rule is {from: …, to: …}, {weekdays: [sat, sun]} or {holidays: DE}.",
        errors=faults[:MAX_RULES],
    )


def _covered(rule: Rule, slot: datetime, zone: ZoneInfo) -> str | None:
    """What of the rule covers the slot, in words."""
    if rule.start is not None and slot < rule.start:
        return None
    if rule.end is not None and slot >= rule.end:
        return None
    wall = slot.astimezone(zone)
    day, since_midnight = wall.date(), timedelta(hours=wall.hour, minutes=wall.minute, seconds=wall.second)
    if rule.window is not None:
        begin, end = rule.window
        if begin < end and not begin <= since_midnight < end:
            return None
        if begin > end and since_midnight < begin:
            if since_midnight >= end:
                return None
            day -= _DAY  # the window belongs to the day on which it began
    if rule.weekdays is not None and day.weekday() not in rule.weekdays:
        return None
    if rule.calendar is not None:
        return _holiday(*rule.calendar, day)
    return rule.text


def _holiday(code: str, subdivision: str | None, day: date) -> str | None:
    name = _days_off(code, subdivision, day.year).get(day)
    return name and f"{name}, {day} ({code}{f'-{subdivision}' if subdivision else ''})"


@lru_cache(maxsize=512)
def _days_off(code: str, subdivision: str | None, year: int) -> dict[date, str]:
    """The holidays of one year, named in English where the calendar can."""
    import holidays

    with warnings.catch_warnings(action="ignore"):  # India warns of years that nobody has published yet
        # Exchanges are countries to this function; where it has no English it takes the country's own language.
        return dict(
            holidays.country_holidays(code, subdiv=subdivision, years=year, expand=False, language="en_US")
        )
