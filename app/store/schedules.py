"""Triggers. Their slots are in `ledger.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select, update

from app.models.rows import ScheduleRow
from app.store.schedule_rows import COLUMNS, firsts, read_rows, rows
from app.store.sql import REVISION, SCHEDULE

_COLUMNS = COLUMNS
#: What says when a trigger fires; a revision keeps it.
_TIMES = ("schedule_interval", "timezone", "start_time", "settings", "last_enabled_at")
_SAID = (*_TIMES, "status", "cursor_at")


def get(tx: Connection, schedule_id: int) -> ScheduleRow | None:
    """One trigger that is not deleted."""
    found = rows(tx, select(*_COLUMNS).where(SCHEDULE.c.id == schedule_id, SCHEDULE.c.deleted_at.is_(None)))
    return found[0] if found else None


def lock(tx: Connection, schedule_id: int) -> ScheduleRow | None:
    """The same, and nobody else changes it or moves it on before this transaction ends."""
    query = select(*_COLUMNS).where(SCHEDULE.c.id == schedule_id, SCHEDULE.c.deleted_at.is_(None))
    found = rows(tx, query.with_for_update(key_share=True))  # its runs may go on pointing at it
    return found[0] if found else None


def exists(tx: Connection, schedule_id: int) -> bool:
    """Whether there is or ever was such a trigger: the history of a deleted one stays readable."""
    return tx.execute(select(1).where(SCHEDULE.c.id == schedule_id)).first() is not None


def ever(tx: Connection, schedule_id: int) -> tuple[ScheduleRow, datetime | None] | None:
    """A trigger, also a deleted one, and when it was deleted."""
    found = firsts(
        read_rows(tx, select(*_COLUMNS, SCHEDULE.c.deleted_at).where(SCHEDULE.c.id == schedule_id))
    )
    return found[0] if found else None


def named(tx: Connection, pipeline_uuid: str, name: str) -> int | None:
    """The id of the trigger of that name."""
    query = select(SCHEDULE.c.id).where(
        SCHEDULE.c.pipeline_uuid == pipeline_uuid, SCHEDULE.c.name == name, SCHEDULE.c.deleted_at.is_(None)
    )
    return tx.execute(query).scalar()


def with_token_hash(tx: Connection, schedule_id: int) -> tuple[ScheduleRow, str | None] | None:
    """A trigger with the hash of its token, which its row never shows."""
    query = select(*_COLUMNS, SCHEDULE.c.token_hash)
    query = query.where(SCHEDULE.c.id == schedule_id, SCHEDULE.c.deleted_at.is_(None))
    found = firsts(read_rows(tx, query))
    return found[0] if found else None


def set_token_hash(tx: Connection, schedule_id: int, token_hash: str) -> None:
    """Make another token the valid one. The trigger means the same as before: its revision stays."""
    tx.execute(update(SCHEDULE).where(SCHEDULE.c.id == schedule_id).values(token_hash=token_hash))


def page(
    tx: Connection,
    *,
    limit: int,
    after_id: int | None = None,
    pipeline_uuid: Sequence[str] | None = None,
    status: Sequence[str] | None = None,
    schedule_type: Sequence[str] | None = None,
    name: Sequence[str] | None = None,
) -> list[ScheduleRow]:
    """Triggers in the order of their ids; `after_id` continues a page."""
    query: Select[Any] = select(*_COLUMNS).where(SCHEDULE.c.deleted_at.is_(None))
    query = query.order_by(SCHEDULE.c.id).limit(limit)
    if after_id is not None:
        query = query.where(SCHEDULE.c.id > after_id)
    filters = (
        (SCHEDULE.c.pipeline_uuid, pipeline_uuid),
        (SCHEDULE.c.status, status),
        (SCHEDULE.c.schedule_type, schedule_type),
        (SCHEDULE.c.name, name),
    )
    for column, wanted in filters:
        if wanted:
            query = query.where(column.in_(wanted))
    return rows(tx, query)


def with_digests(tx: Connection) -> list[tuple[ScheduleRow, str | None]]:
    """Every trigger, with the digest of the entry of a file that it was last made from."""
    query = select(*_COLUMNS, SCHEDULE.c.digest).where(SCHEDULE.c.deleted_at.is_(None))
    return firsts(read_rows(tx, query.order_by(SCHEDULE.c.id)))


def live(tx: Connection) -> list[tuple[ScheduleRow, str | None, str | None]]:
    """Every trigger that is not deleted, with the digest of what it was made from and its token's hash."""
    query = select(*_COLUMNS, SCHEDULE.c.digest, SCHEDULE.c.token_hash).where(SCHEDULE.c.deleted_at.is_(None))
    return [(row, more[0], more[1]) for row, more in read_rows(tx, query.order_by(SCHEDULE.c.id))]


def save(tx: Connection, schedule_id: int, values: Mapping[str, Any], *, new: bool, now: datetime) -> None:
    """Create or change a trigger; `values` holds the columns to set, its `revision` included."""
    if new:
        tx.execute(SCHEDULE.insert().values(id=schedule_id, created_at=now, updated_at=now, **values))
    else:
        tx.execute(update(SCHEDULE).where(SCHEDULE.c.id == schedule_id).values(updated_at=now, **values))
    source = select(
        SCHEDULE.c.id, SCHEDULE.c.revision, SCHEDULE.c.updated_at, *(SCHEDULE.c[name] for name in _SAID)
    ).where(SCHEDULE.c.id == schedule_id)
    columns = [REVISION.c.schedule_id, REVISION.c.revision, REVISION.c.at, *(REVISION.c[n] for n in _SAID)]
    tx.execute(REVISION.insert().from_select(columns, source))


def as_said(tx: Connection, schedule: ScheduleRow) -> ScheduleRow:
    """The trigger with the timing of its last revision, which a hand in the table does not change."""
    query = select(*(REVISION.c[name] for name in _TIMES))
    query = query.where(
        REVISION.c.schedule_id == schedule.id,
        REVISION.c.revision == schedule.revision,
        REVISION.c.settings.is_not(None),  # written by a program of before: it had not all of it
    )
    row = tx.execute(query).first()
    return replace(schedule, **row._mapping) if row else schedule
