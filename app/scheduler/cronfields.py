"""The fields of a cron expression, checked strictly and in words, before croniter reads them."""

import re

from app.errors import InvalidInput

MAX_LENGTH = 200
MINUTE, HOUR, DAY_OF_MONTH, MONTH, WEEKDAY, SECOND, YEAR = range(7)
FIELD_NAMES = ("minute", "hour", "day of month", "month", "day of week", "second", "year")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (0, 59), (1970, 2099))

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
WEEK_STARTS = {"sunday": "0 0 * * 0", "monday": "0 0 * * 1"}
INTERVALS = ("@once", "@hourly", "@daily", "@weekly", "@monthly", "@always_on", "@every 90s")

_FIELD = re.compile(r"[0-9A-Za-z*/,#?-]+", re.ASCII)
_HASH = re.compile(r"(^|,)[hr](/|,|$)", re.ASCII)
_EQUAL_RANGE = re.compile(r"(?:^|,)(\w+)-\1(?=[,/]|$)", re.ASCII)


class InvalidInterval(InvalidInput):
    """The schedule interval or its time zone cannot be understood, or no date ever matches it."""

    code, title = "invalid_schedule_interval", "Invalid schedule interval"


def printable(text: str) -> str:
    r"""A text from outside as it can stand in a message: short, and without what no encoding takes.

    >>> printable("a\ud800")
    'a\\ud800'
    """
    return text[:MAX_LENGTH].encode("utf-8", "backslashreplace").decode()


def fields_of(expression: str, text: str) -> list[str]:
    """The fields of an expression after the checks that croniter does not make, or not in words."""
    if expression.startswith("@"):
        raise InvalidInterval(
            f"unknown interval '{text}'", hint=f"Use {', '.join(INTERVALS)} or a cron expression."
        )
    fields = expression.split()
    if not 5 <= len(fields) <= 7:
        raise InvalidInterval(
            f"'{text}' has {len(fields)} fields; a cron expression has 5, 6 or 7",
            hint="minute hour day-of-month month day-of-week [second [year]], such as '0 6 * * mon-fri'.",
        )
    for name, field, span in zip(FIELD_NAMES, fields, _RANGES, strict=False):
        if not _FIELD.fullmatch(field):
            raise InvalidInterval(f"'{text}': {name} '{field}' has a character that cron does not know")
        if _HASH.search(field):
            raise InvalidInterval(
                f"'{text}': {name} '{field}': hashed and random values (H, R) are not supported"
            )
        if equal := _EQUAL_RANGE.search(field):
            hint = f"Write '{equal[1]}' for that one value, or '*' for all."
            raise InvalidInterval(f"'{text}': {name} range '{equal[1]}-{equal[1]}' is ambiguous", hint=hint)
        _check_numbers(text, name, field, span)
    return fields


def _check_numbers(text: str, name: str, field: str, span: tuple[int, int]) -> None:
    for part in field.split(","):
        values, _, step = part.partition("/")
        for value in values.split("-"):
            if value.isdigit() and not span[0] <= int(value) <= span[1]:
                raise InvalidInterval(f"'{text}': {name} '{value}' is out of range {span[0]} to {span[1]}")
        if step.isdigit() and not int(step):
            raise InvalidInterval(f"'{text}': {name} '{part}' has the step '0', which leads nowhere")
