"""One rule of `blackouts`, read strictly: what it says, or every fault with its place."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from app.errors import FieldError
from app.scheduler.cronfields import printable

MAX_RULES = 100
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG = {f"{name}day" for name in ("mon", "tues", "wednes", "thurs", "fri", "satur", "sun")}
_KEYS = ("name", "from", "to", "weekdays", "holidays", "subdivision")
_TIME = re.compile(r"([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_CODE = re.compile(r"[A-Z][A-Z0-9]{1,5}", re.ASCII)
_MIDNIGHT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that must all hold. None is no condition; weekdays count from Monday = 0."""

    index: int
    name: str | None = None
    text: str = ""
    start: datetime | None = None
    end: datetime | None = None
    weekdays: frozenset[int] | None = None
    #: times since midnight; where the first is later the window ends on the next day
    window: tuple[timedelta, timedelta] | None = None
    calendar: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Faults:
    """Where faults of one rule are put."""

    found: list[FieldError]
    pointer: str

    def add(self, key: str, message: str, *within: int) -> None:
        """One fault, of a key of the rule (and a position within) or, with '', of the whole."""
        place = printable(key).replace("~", "~0").replace("/", "~1")
        parts = (self.pointer, *([place] if key else ()), *map(str, within))
        self.found.append(FieldError("/".join(parts), message))


def read_rule(entry: Mapping[str, Any], index: int, zone: ZoneInfo, faults: Faults) -> Rule:
    """The rule of one mapping. What is wrong is added to `faults`, and the rule then means nothing."""
    for key in entry:
        if key not in _KEYS:
            faults.add(key, f"unknown key; a rule has {', '.join(_KEYS)}")
    name = entry.get("name")
    if name is not None and (not isinstance(name, str) or not 0 < len(name.strip()) <= 100):
        faults.add("name", "must be a text of 1 to 100 characters")
        name = None
    rule = Rule(index, name and name.strip())
    if entry.get("holidays") is not None or "subdivision" in entry:
        return replace(rule, calendar=_calendar(entry, faults))
    if "weekdays" in entry:
        rule = replace(rule, weekdays=_weekdays(entry["weekdays"], faults))
    if "from" in entry or "to" in entry:
        rule = _span(rule, entry, zone, faults)
    elif "weekdays" not in entry:
        faults.add("", "says no time; give from and to, weekdays or holidays")
    return replace(rule, text=_words(rule, entry))


def _words(rule: Rule, entry: Mapping[str, Any]) -> str:
    days = ", ".join(WEEKDAYS[day] for day in sorted(rule.weekdays or ()))
    span = f"{entry['from']} to {entry['to']}" if "from" in entry and "to" in entry else ""
    return " ".join(filter(None, (days, span)))


def _weekdays(value: object, faults: Faults) -> frozenset[int]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not 1 <= len(names) <= 7:
        faults.add("weekdays", "must be a list such as [sat, sun]")
        return frozenset()
    found = set()
    for position, name in enumerate(names):
        short = name.strip().lower() if isinstance(name, str) else ""
        if short in WEEKDAYS or short in _LONG:
            found.add(WEEKDAYS.index(short[:3]))
        else:  # a number would be another day to cron than to Python
            faults.add("weekdays", f"must be one of {', '.join(WEEKDAYS)}", position)
    return frozenset(found)


def _span(rule: Rule, entry: Mapping[str, Any], zone: ZoneInfo, faults: Faults) -> Rule:
    """`from` and `to`: both times of day, or both dates or moments."""
    ends = {key: entry.get(key) for key in ("from", "to")}
    for key, value in ends.items():
        if not isinstance(value, str):
            faults.add(key, 'must be a date, a date with a time, or a time of day in quotes, such as "22:00"')
            return rule
    begin, end = (str(value).strip() for value in ends.values())
    if _TIME.fullmatch(begin) or _TIME.fullmatch(end):
        return replace(rule, window=_window(begin, end, faults))
    start, stop = _moment(begin, zone, "from", faults), _moment(end, zone, "to", faults)
    if start is not None and stop is not None and stop <= start:
        faults.add("to", f"'{end}' is not after '{begin}'")
    return replace(rule, start=start, end=stop)


def _window(begin: str, end: str, faults: Faults) -> tuple[timedelta, timedelta] | None:
    since = {key: _since_midnight(text) for key, text in (("from", begin), ("to", end))}
    for key, value in since.items():
        if value is None or (key == "from" and value == _MIDNIGHT):
            faults.add(key, "must be a time of day from 00:00 to 23:59 (to: 24:00), as the other end is one")
    start, stop = since["from"], since["to"]
    if start is None or stop is None:
        return None
    if start == stop:
        faults.add("to", "is the same time as from; leave both out for the whole day")
    return start, stop


def _since_midnight(text: str) -> timedelta | None:
    if not (match := _TIME.fullmatch(text)):
        return None
    since = timedelta(hours=int(match[1]), minutes=int(match[2]))
    return since if since <= _MIDNIGHT else None


def _moment(text: str, zone: ZoneInfo, key: str, faults: Faults) -> datetime | None:
    """The instant; a date is its beginning for `from`, its end for `to`; without an offset in the zone."""
    try:
        if len(text) == len("2026-12-24"):
            day = date.fromisoformat(text) + (timedelta(days=1) if key == "to" else timedelta())
            moment = datetime.combine(day, time())
        else:
            moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            # A local time that comes twice ends a blackout the second time.
            moment = moment.replace(tzinfo=zone, fold=int(key == "to"))
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        faults.add(
            key,
            f"'{printable(text)[:40]}' is not a date (2026-12-24), a moment (2026-12-24T18:00) or a time (18:00)",
        )
        return None


def _calendar(entry: Mapping[str, Any], faults: Faults) -> tuple[str, str | None] | None:
    for key in ("from", "to", "weekdays"):
        if key in entry:
            faults.add(key, "does not go together with holidays; make it a rule of its own")
    code, subdivision = entry.get("holidays"), entry.get("subdivision")
    if code is False:
        faults.add("holidays", 'is the YAML word for false; put the code in quotes: "NO"')
        return None
    known = subdivisions(code.strip()) if isinstance(code, str) else None
    if not isinstance(code, str) or known is None:
        message = "must be a country code (ISO 3166) or an exchange that is known, such as DE or XNYS"
        faults.add("holidays", message)
        return None
    if subdivision is not None and str(subdivision) not in known:
        faults.add("subdivision", f"must be one of {', '.join(known[:60]) or 'none'}")
        return None
    return code.strip(), None if subdivision is None else str(subdivision)


@lru_cache(maxsize=1024)
def subdivisions(code: str) -> tuple[str, ...] | None:
    """The parts of a country that have holidays of their own; None where the calendar is not known.

    Loads that one country: a list of all takes 200 ms, for which the service would stand still.
    """
    import holidays

    if not _CODE.fullmatch(code):  # other names of the package are no calendars
        return None
    try:
        return tuple(holidays.country_holidays(code).subdivisions)
    except (NotImplementedError, AttributeError, TypeError):  # its answers to a name that is none
        return None
