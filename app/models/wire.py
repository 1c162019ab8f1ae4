"""What all bodies of the API share: strictness, times, ids, pages, problems."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
MAX_INT64: Final = 2**63 - 1
#: Outside these years a zone's offset, or the next slot, may leave what `datetime` can hold.
_YEARS: Final = range(1900, 9000)


def parse_time(value: object) -> datetime:
    """An RFC 3339 time with an offset, as UTC. Raises ValueError, also for a naive time.

    >>> parse_time("2026-03-01T02:00:00+02:00").isoformat()
    '2026-03-01T00:00:00+00:00'
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError(
            "must be an RFC 3339 time with an offset, such as 2026-01-31T08:00:00Z or …T08:00:00+01:00"
        )
    if int(value[:4]) not in _YEARS:
        raise ValueError(f"the year must lie between {_YEARS.start} and {_YEARS.stop - 1}")
    return datetime.fromisoformat(value.upper()).astimezone(UTC)


def parse_int64(value: object) -> object:
    """Decimal digits as a number: the only spelling of an id or a count in a path or a query."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("must be a whole number")
    return value


def parse_bool(value: object) -> object:
    """`true` or `false` in a query: other spellings would be guessed at."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


Time = Annotated[
    datetime,
    BeforeValidator(parse_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T08:00:00Z"]}),
]
#: An id in a path or a query.
Int64 = Annotated[int, Field(ge=1, le=MAX_INT64), BeforeValidator(parse_int64)]
Item = TypeVar("Item")


class In(BaseModel):
    """A body that comes in: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Out(BaseModel):
    """A body that goes out, made from a row."""

    model_config = ConfigDict(from_attributes=True)


class Fault(Out):
    """One fault of one field."""

    pointer: str = Field(description="JSON pointer into the body, or the name of a parameter or header")
    message: str


class Problem(Out):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="path of the request")
    code: str = Field(description="stable name of the error, for programs")
    request_id: str = Field(description="also in the X-Request-Id header and in the service's log")
    hint: str | None = Field(default=None, description="the way out")
    errors: list[Fault] | None = None


class Page(Out, Generic[Item]):
    """One page of a list. Ask again with `cursor=<next_cursor>` until it is null."""

    items: list[Item]
    next_cursor: str | None = None
