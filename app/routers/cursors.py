"""Opaque page cursors: what comes next, wrapped so that nobody builds one by hand."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import NoReturn

from app.errors import FieldError, InvalidInput


def wrap(kind: str, position: str | int) -> str:
    """A cursor of a list.

    >>> wrap("run", 7), unwrap("run", wrap("run", 7))
    ('cnVuOjc', '7')
    """
    return urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")


def unwrap(kind: str, cursor: str) -> str:
    """The position in a cursor of the same list. Raises InvalidInput for anything else."""
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        found, _, position = raw.decode().partition(":")
    except (binascii.Error, UnicodeError):
        _refuse()
    if found != kind:
        _refuse()
    return position


def unwrap_id(kind: str, cursor: str | None) -> int | None:
    """The id in a cursor; None without one."""
    if cursor is None:
        return None
    position = unwrap(kind, cursor)
    if not (position.isascii() and position.isdigit() and len(position) <= 19 and int(position) < 2**63):
        _refuse()
    return int(position)


def number(text: str, name: str) -> int:
    """A position that is a plain number, as SSE ids of run events are. Raises InvalidInput naming the header."""
    if text.isascii() and text.isdigit() and len(text) <= 19 and int(text) < 2**63:
        return int(text)
    raise InvalidInput(
        f"{name}: not an id of this stream", errors=[FieldError(name, "not an id of this stream")]
    )


def unwrap_time(kind: str, cursor: str | None) -> datetime | None:
    """The time in a cursor, as `isoformat` wrote it; None without one."""
    if cursor is None:
        return None
    try:
        time = datetime.fromisoformat(unwrap(kind, cursor))
    except ValueError:
        _refuse()
    return time if time.tzinfo else _refuse()


def _refuse() -> NoReturn:
    message = "not a cursor of this list"
    raise InvalidInput(
        f"cursor: {message}",
        hint="Use the next_cursor of the page before, unchanged.",
        errors=[FieldError("cursor", message)],
    )
