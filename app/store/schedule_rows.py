"""Rows of triggers as values, also of those that somebody has written by hand into the table.

One row that cannot be understood must not hide the others: it comes out with what can be read of it, and an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Connection, Select, Text, type_coerce

from app.models.columns import UtcDateTime, from_us
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.store.sql import SCHEDULE

#: Not columns: what is worked out for those who look at a trigger.
_SHOWN: Final = ("next_execution_date", "starts_at", "ended", "unreadable")
NAMES: Final = tuple(f.name for f in fields(ScheduleRow) if f.name not in _SHOWN)
COLUMNS: Final = tuple(SCHEDULE.c[name] for name in NAMES)
_SHAPES: Final[dict[str, type]] = {"variables": dict, "settings": dict, "tags": list}
_NEEDED: Final = ("created_at", "updated_at")


def schedule_row(row: Sequence[Any]) -> ScheduleRow:
    """A ScheduleRow of a row of COLUMNS. Raises ValueError when it holds something that cannot be."""
    values = dict(zip(NAMES, row, strict=True))
    values["schedule_type"] = ScheduleType(values["schedule_type"])
    values["status"] = ScheduleStatus(values["status"])
    for name, shape in _SHAPES.items():
        if type(values[name]) is not shape:
            raise ValueError(f"its column {name} does not hold a {'mapping' if shape is dict else 'list'}")
    values["tags"] = tuple(values["tags"])
    return ScheduleRow(**values)


def read_rows(tx: Connection, query: Select[Any]) -> list[tuple[ScheduleRow, tuple[Any, ...]]]:
    """The triggers of a query over COLUMNS and perhaps more, each with what it asked for beside them."""
    size = len(COLUMNS)
    try:
        return [(schedule_row(row[:size]), tuple(row[size:])) for row in tx.execute(query)]
    except (ValueError, TypeError, OverflowError):
        pass  # one of them cannot be read: each by itself
    more = list(query.selected_columns)[size:]
    raw = tx.execute(query.with_only_columns(*_raw_columns(tx.dialect.name), *more))
    return [(_by_itself(tx.dialect.name, row[:size]), tuple(row[size:])) for row in raw]


def rows(tx: Connection, query: Select[Any]) -> list[ScheduleRow]:
    """The triggers of a query over COLUMNS."""
    return [row for row, _more in read_rows(tx, query)]


def _by_itself(dialect: str, raw: Sequence[Any]) -> ScheduleRow:
    """One trigger, whatever its row holds."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, column, value in zip(NAMES, COLUMNS, raw, strict=True):
        try:
            values[name] = _understood(dialect, name, column, value)
        except (ValueError, TypeError, OverflowError):
            faults.append(name)
            values[name] = _stand_in(name, column)
    row = schedule_row([values[name] for name in NAMES])
    if not faults:
        return row
    return _with_error(row, f"its row in the database cannot be read: {', '.join(faults)}")


def _with_error(row: ScheduleRow, error: str) -> ScheduleRow:
    return ScheduleRow(
        **{f.name: getattr(row, f.name) for f in fields(row) if f.name not in ("error", "unreadable")},
        error=error,
        unreadable=True,
    )


@cache
def _raw_columns(dialect: str) -> tuple[Any, ...]:
    """COLUMNS as the driver gives them: nothing is decoded that might not decode."""
    return tuple(_raw(dialect, column) for column in COLUMNS)


def _raw(dialect: str, column: Any) -> Any:
    if column.name in _SHAPES:
        return type_coerce(column, Text)
    if isinstance(column.type, UtcDateTime) and dialect == "sqlite":
        return type_coerce(column, BigInteger)
    return column


def _understood(dialect: str, name: str, column: Any, value: Any) -> Any:
    if name in _SHAPES:
        found = orjson.loads(value) if isinstance(value, str | bytes) else value
        if type(found) is not _SHAPES[name]:
            raise ValueError(name)
        return found
    if value is not None and isinstance(column.type, UtcDateTime) and dialect == "sqlite":
        return from_us(value)
    if name in _NEEDED and not isinstance(value, datetime):
        raise ValueError(name)
    return value


def _stand_in(name: str, column: Any) -> Any:
    if name in _SHAPES:
        return _SHAPES[name]()
    return from_us(0) if name in _NEEDED else None


def firsts(found: Iterable[tuple[ScheduleRow, tuple[Any, ...]]]) -> list[tuple[ScheduleRow, Any]]:
    """Triggers with the one thing that was asked for beside them."""
    return [(row, more[0]) for row, more in found]
