"""A schedule interval in words, for a person who wants to know what an expression means. Pure.

It says what is written, not what follows from it: the dates are the timetable's to tell. Give it an interval
that :func:`app.scheduler.timetable.parse` has taken.
"""

import re
from itertools import product
from typing import Final

from app.scheduler.cronfields import NAMED, WEEK_STARTS

_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_ANY: Final = ("*", "?")
#: More times of day than this are told as a rule.
_TIMES = 6


def in_words(interval: str, week_start: str = "sunday") -> str:
    """What an interval says.

    >>> in_words("30 2 * * *"), in_words("*/15 8-17 * * mon-fri")
    ('at 02:30 every day', 'every 15 minutes in hours 8 to 17, on Monday to Friday')
    >>> in_words("0 0 1,15 * 5"), in_words("0 9 * * 5#2")
    ('at 00:00, on day 1, 15 of the month and every Friday', 'at 09:00, on the 2nd Friday of the month')
    """
    name = " ".join(interval.split()).lower()
    if name == "@once":
        return "once, at its start_time or when it becomes active"
    if name == "@always_on":
        return "always: the next run begins when the one before has ended"
    if name.startswith("@every"):
        return f"every {name.removeprefix('@every').strip()}"
    expression = WEEK_STARTS[week_start] if name == "@weekly" else NAMED.get(name, name)
    minute, hour, day, month, weekday, *more = expression.split()
    second = more[0] if more else "0"
    year = more[1] if len(more) > 1 else "*"
    times, days = _times(second, minute, hour), _days(day, weekday, month, year)
    if not days:
        return f"{times} every day" if times.startswith("at ") and hour not in _ANY else times
    return f"{times}, {days}"


def _times(second: str, minute: str, hour: str) -> str:
    """The times of day."""
    found = _clock_times(second, minute, hour)
    if found is not None:
        return f"at {', '.join(found)}"
    parts = []
    if second not in ("0", "00"):
        parts.append(_each(second, "second"))
    if minute not in _ANY or not parts:
        parts.append(_each(minute, "minute"))
    if hour not in _ANY:
        parts.append(_within(hour))
    elif minute not in _ANY and "/" not in minute:
        parts.append("of every hour")
    return " ".join(parts)


def _clock_times(second: str, minute: str, hour: str) -> list[str] | None:
    """The times of day as a clock shows them, when they are few and plain numbers."""
    fields = [part.split(",") for part in (hour, minute, second)]
    if not all(value.isdigit() for part in fields for value in part):
        return None
    times = sorted(product(*(sorted({int(value) for value in part}) for part in fields)))
    if len(times) > _TIMES:
        return None
    return [f"{h:02}:{m:02}" + (f":{s:02}" if second not in ("0", "00") else "") for h, m, s in times]


def _each(field: str, unit: str) -> str:
    """
    >>> _each("*", "minute"), _each("*/5", "minute"), _each("0,30", "minute"), _each("10-20/2", "minute")
    ('every minute', 'every 5 minutes', 'at minute 0, 30', 'at minute 10 to 20 by 2')
    """
    if field in (*_ANY, "*/1"):
        return f"every {unit}"
    if step := re.fullmatch(r"\*/(\d+)", field):
        even = 60 % int(step[1]) == 0
        return f"every {step[1]} {unit}s" + ("" if even else f" from {unit} 0 on")
    return f"at {unit} {_list(field)}"


def _within(hour: str) -> str:
    if step := re.fullmatch(r"\*/(\d+)", hour):
        return f"in every {_nth(int(step[1]))} hour"
    return f"in hour{'s' if re.search('[-,/]', hour) else ''} {_list(hour)}"


def _days(day: str, weekday: str, month: str, year: str) -> str:
    """The days; empty when it is every day of every month."""
    found = " and ".join(part for part in (_days_of_month(day), _weekdays(weekday, day)) if part)
    months = "" if month in _ANY else f"in {_list(month, _MONTHS)}"
    years = "" if year in _ANY else f"in {_list(year)}"
    if not found and (months or years):
        found = "every day"
    return " ".join(part for part in (found, months, years) if part)


def _days_of_month(day: str) -> str:
    if day in _ANY:
        return ""
    if day in ("l", "L"):
        return "on the last day of the month"
    if nearest := re.fullmatch(r"(\d+)w|w(\d+)", day, re.IGNORECASE):
        return f"on the weekday nearest to day {nearest[1] or nearest[2]} of the month"
    if step := re.fullmatch(r"\*/(\d+)", day):
        return f"on every {_nth(int(step[1]))} day of the month"
    return f"on day {_list(day)} of the month".replace(" l ", " the last ").replace(", l", ", the last")


def _weekdays(weekday: str, day: str) -> str:
    if weekday in _ANY:
        return ""
    # A restricted day of month and a restricted weekday are alternatives: either makes a slot.
    begin = "on" if day in _ANY else "every"
    if "#" in weekday or re.search(r"(^|,)l\d|\dl(,|$)", weekday, re.IGNORECASE):
        return f"on {', '.join(_special(part) for part in weekday.split(','))} of the month"
    return f"{begin} {_list(weekday, _WEEKDAYS)}"


def _special(part: str) -> str:
    if "#" in part:
        name, _, number = part.partition("#")
        which = "last" if number.lower() == "l" else _nth(int(number))
        return f"the {which} {_name(name, _WEEKDAYS)}"
    if re.fullmatch(r"l\d|\dl", part, re.IGNORECASE):
        return f"the last {_name(part.strip('lL'), _WEEKDAYS)}"
    return f"each {_name(part, _WEEKDAYS)}"


def _list(field: str, names: tuple[str, ...] = ()) -> str:
    """
    >>> _list("1,3-5,*/2"), _list("jan,6-8", _MONTHS)
    ('1, 3 to 5, every 2nd', 'January, June to August')
    """
    return ", ".join(_part(part, names) for part in field.split(","))


def _part(part: str, names: tuple[str, ...]) -> str:
    base, _, step = part.partition("/")
    if base in _ANY:
        return f"every {_nth(int(step))}" if step else "any"
    first, _, last = base.partition("-")
    said = _name(first, names) + (f" to {_name(last, names)}" if last else (" on" if step else ""))
    return said + (f" by {step}" if step else "")


def _name(value: str, names: tuple[str, ...]) -> str:
    if not names:
        return value
    if value.isdigit():
        return names[int(value)] if int(value) < len(names) else value
    return next((name for name in names if name and name.lower().startswith(value[:3].lower())), value)


def _nth(number: int) -> str:
    """
    >>> [_nth(n) for n in (1, 2, 3, 4, 11, 22)]
    ['1st', '2nd', '3rd', '4th', '11th', '22nd']
    """
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
