"""Column types that both databases store the same meaning in."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, DateTime, Dialect, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)

#: Ids of every resource. SQLite knows only INTEGER as the alias of its rowid.
Id = BigInteger().with_variant(Integer(), "sqlite")
#: JSON objects and lists; binary JSON on Postgres.
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def to_us(value: datetime) -> int:
    """Microseconds since 1970-01-01 UTC. Raises ValueError for a naive time.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if value.tzinfo is None:
        raise ValueError(f"naive time {value!r}: times in the store carry a zone")
    return (value - _EPOCH) // _US


def from_us(value: int) -> datetime:
    """The aware UTC time of :func:`to_us`."""
    return _EPOCH + timedelta(microseconds=value)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. Aware in, aware UTC out; a naive time is refused.

    SQLite keeps microseconds as an integer: its own datetime text drops the zone without converting.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Integer microseconds on SQLite, timestamptz on Postgres."""
        native = DateTime(timezone=True) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(native)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse naive times; encode for the dialect."""
        if value is None:
            return None
        us = to_us(value)
        return value if dialect.name == "postgresql" else us

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Always aware, always UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name == "postgresql" else from_us(value)


def one_of(column: str, values: Iterable[StrEnum], name: str, *, nullable: bool = False) -> CheckConstraint:
    """A CHECK that holds a text column to an enumeration; text is easy to extend, a native enum is not."""
    listed = ", ".join(f"'{value}'" for value in values)
    rule = f"{column} IN ({listed})"
    return CheckConstraint(f"{column} IS NULL OR {rule}" if nullable else rule, name=name)


__all__ = ["Id", "Json", "Text", "UtcDateTime", "from_us", "one_of", "to_us"]
