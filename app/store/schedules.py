"""Triggers and their slot ledger."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select, update

from app.models.rows import ScheduleRow, SlotRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.store.sql import HISTORY, LIMIT, REVISION, RUN, SCHEDULE, SLOT, insert, take_seq

_NAMES = tuple(f.name for f in fields(ScheduleRow) if f.name != "next_execution_date")
_COLUMNS = tuple(SCHEDULE.c[name] for name in _NAMES)
_SLOT_COLUMNS = (
    SLOT.c.pipeline_schedule_id,
    SLOT.c.execution_date,
    SLOT.c.outcome,
    SLOT.c.decided_at,
    SLOT.c.reason,
    SLOT.c.pipeline_run_id,
    SLOT.c.until,
    SLOT.c.slot_count,
)


def schedule_row(row: Sequence[Any]) -> ScheduleRow:
    """A ScheduleRow of a row of the schedule's columns."""
    values = dict(zip(_NAMES, row, strict=True))
    values["schedule_type"] = ScheduleType(values["schedule_type"])
    values["status"] = ScheduleStatus(values["status"])
    values["tags"] = tuple(values["tags"])
    return ScheduleRow(**values)


def get(tx: Connection, schedule_id: int) -> ScheduleRow | None:
    """One trigger that is not deleted."""
    row = tx.execute(
        select(*_COLUMNS).where(SCHEDULE.c.id == schedule_id, SCHEDULE.c.deleted_at.is_(None))
    ).first()
    return schedule_row(row) if row else None


def lock(tx: Connection, schedule_id: int) -> ScheduleRow | None:
    """The same, and nobody else changes it or moves it on before this transaction ends."""
    query = select(*_COLUMNS).where(SCHEDULE.c.id == schedule_id, SCHEDULE.c.deleted_at.is_(None))
    row = tx.execute(query.with_for_update()).first()
    return schedule_row(row) if row else None


def exists(tx: Connection, schedule_id: int) -> bool:
    """Whether there is or ever was such a trigger: the history of a deleted one stays readable."""
    return tx.execute(select(1).where(SCHEDULE.c.id == schedule_id)).first() is not None


def named(tx: Connection, pipeline_uuid: str, name: str) -> int | None:
    """The id of the trigger of that name."""
    query = select(SCHEDULE.c.id).where(
        SCHEDULE.c.pipeline_uuid == pipeline_uuid, SCHEDULE.c.name == name, SCHEDULE.c.deleted_at.is_(None)
    )
    return tx.execute(query).scalar()


def with_token_hash(tx: Connection, schedule_id: int) -> tuple[ScheduleRow, str | None] | None:
    """A trigger with the hash of its token, which its row never shows."""
    query = select(*_COLUMNS, SCHEDULE.c.token_hash)
    row = tx.execute(query.where(SCHEDULE.c.id == schedule_id, SCHEDULE.c.deleted_at.is_(None))).first()
    return (schedule_row(row[:-1]), row[-1]) if row else None


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
    return [schedule_row(row) for row in tx.execute(query)]


def with_digests(tx: Connection) -> list[tuple[ScheduleRow, str | None]]:
    """Every trigger, with the digest of the entry of a file that it was last made from."""
    query = select(*_COLUMNS, SCHEDULE.c.digest).where(SCHEDULE.c.deleted_at.is_(None))
    return [(schedule_row(row[:-1]), row[-1]) for row in tx.execute(query.order_by(SCHEDULE.c.id))]


def live(tx: Connection) -> list[tuple[ScheduleRow, str | None, str | None]]:
    """Every trigger that is not deleted, with the digest of what it was made from and its token's hash."""
    query = select(*_COLUMNS, SCHEDULE.c.digest, SCHEDULE.c.token_hash).where(SCHEDULE.c.deleted_at.is_(None))
    return [(schedule_row(row[:-2]), row[-2], row[-1]) for row in tx.execute(query.order_by(SCHEDULE.c.id))]


def save(tx: Connection, schedule_id: int, values: Mapping[str, Any], *, new: bool, now: datetime) -> None:
    """Create or change a trigger; `values` holds the columns to set, its `revision` included."""
    if new:
        tx.execute(SCHEDULE.insert().values(id=schedule_id, created_at=now, updated_at=now, **values))
    else:
        tx.execute(update(SCHEDULE).where(SCHEDULE.c.id == schedule_id).values(updated_at=now, **values))
    columns = (REVISION.c.schedule_interval, REVISION.c.timezone, REVISION.c.status, REVISION.c.cursor_at)
    source = select(
        SCHEDULE.c.id,
        SCHEDULE.c.revision,
        SCHEDULE.c.updated_at,
        SCHEDULE.c.schedule_interval,
        SCHEDULE.c.timezone,
        SCHEDULE.c.status,
        SCHEDULE.c.cursor_at,
    ).where(SCHEDULE.c.id == schedule_id)
    tx.execute(
        REVISION.insert().from_select(
            [REVISION.c.schedule_id, REVISION.c.revision, REVISION.c.at, *columns], source
        )
    )


def set_limit(tx: Connection, scope: str, cap: int | None, *, now: datetime) -> bool:
    """Set or (None) lift the limit of a scope; True when that changed anything. Every change is kept by seq."""
    old = tx.execute(select(LIMIT.c.cap).where(LIMIT.c.scope == scope).with_for_update()).scalar()
    if old == cap:
        return False
    if cap is None:
        tx.execute(LIMIT.delete().where(LIMIT.c.scope == scope))
    else:
        statement = insert(tx, LIMIT).values(scope=scope, cap=cap)
        tx.execute(statement.on_conflict_do_update(index_elements=[LIMIT.c.scope], set_={"cap": cap}))
    tx.execute(HISTORY.insert().values(scope=scope, seq=take_seq(tx, 1)[0], cap=cap, at=now))
    return True


def limits(tx: Connection, prefix: str) -> dict[str, int]:
    """The limits whose scope begins with `prefix`."""
    query = select(LIMIT.c.scope, LIMIT.c.cap).where(LIMIT.c.scope.startswith(prefix, autoescape=True))
    return {row.scope: row.cap for row in tx.execute(query)}


def due(tx: Connection, *, now: datetime, limit: int) -> list[ScheduleRow]:
    """Active triggers to be looked at, the longest due first."""
    query = (
        select(*_COLUMNS)
        .where(
            SCHEDULE.c.next_fire_at.is_not(None),
            SCHEDULE.c.next_fire_at <= now,
            SCHEDULE.c.status == ScheduleStatus.ACTIVE,
            SCHEDULE.c.deleted_at.is_(None),
        )
        .order_by(SCHEDULE.c.next_fire_at, SCHEDULE.c.id)
        .limit(limit)
    )
    return [schedule_row(row) for row in tx.execute(query)]


def next_due(tx: Connection) -> datetime | None:
    """When the next trigger is due."""
    query = select(func.min(SCHEDULE.c.next_fire_at)).where(
        SCHEDULE.c.next_fire_at.is_not(None),
        SCHEDULE.c.status == ScheduleStatus.ACTIVE,
        SCHEDULE.c.deleted_at.is_(None),
    )
    return tx.execute(query).scalar()


def advance(
    tx: Connection, schedule: ScheduleRow, *, cursor_at: datetime | None, next_fire_at: datetime | None
) -> bool:
    """Move a trigger on, if nobody has since it was read: the compare-and-set that makes a slot fire once."""
    cursor = SCHEDULE.c.cursor_at
    moved = tx.execute(
        update(SCHEDULE)
        .where(
            SCHEDULE.c.id == schedule.id,
            SCHEDULE.c.revision == schedule.revision,
            SCHEDULE.c.status == ScheduleStatus.ACTIVE,
            SCHEDULE.c.deleted_at.is_(None),
            cursor.is_(None) if schedule.cursor_at is None else cursor == schedule.cursor_at,
        )
        .values(cursor_at=cursor_at, next_fire_at=next_fire_at)
    )
    return moved.rowcount == 1


def quarantine(tx: Connection, schedule: ScheduleRow, error: str, *, now: datetime) -> None:
    """Set a trigger aside: it is shown with its error and does not fire until its definition changes."""
    tx.execute(
        update(SCHEDULE)
        .where(SCHEDULE.c.id == schedule.id, SCHEDULE.c.revision == schedule.revision)
        .values(error=error, next_fire_at=None, updated_at=now)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSlot:
    """A decision about one slot, or about a stretch of them."""

    execution_date: datetime
    outcome: SlotOutcome
    reason: str | None = None
    pipeline_run_id: int | None = None
    until: datetime | None = None
    count: int = 1


def write_slots(
    tx: Connection, schedule: ScheduleRow, slots: Iterable[NewSlot], *, node_id: str, now: datetime
) -> None:
    """Write decisions. A slot that has one already is a primary key fault: it rolls the tick back."""
    rows = [
        {
            "pipeline_schedule_id": schedule.id,
            "execution_date": slot.execution_date,
            "outcome": slot.outcome,
            "reason": slot.reason,
            "pipeline_run_id": slot.pipeline_run_id,
            "until": slot.until,
            "slot_count": slot.count,
            "revision": schedule.revision,
            "decided_by": node_id,
            "decided_at": now,
        }
        for slot in slots
    ]
    if rows:
        tx.execute(SLOT.insert(), rows)


def slots(tx: Connection, schedule_id: int, *, limit: int, before: datetime | None = None) -> list[SlotRow]:
    """The ledger of a trigger, newest first."""
    query = select(*_SLOT_COLUMNS).where(SLOT.c.pipeline_schedule_id == schedule_id)
    if before is not None:
        query = query.where(SLOT.c.execution_date < before)
    rows = tx.execute(query.order_by(SLOT.c.execution_date.desc()).limit(limit))
    return [
        SlotRow(
            pipeline_schedule_id=row.pipeline_schedule_id,
            execution_date=row.execution_date,
            outcome=SlotOutcome(row.outcome),
            decided_at=row.decided_at,
            reason=row.reason,
            pipeline_run_id=row.pipeline_run_id,
            until=row.until,
            count=row.slot_count,
        )
        for row in rows
    ]


def last_decided(tx: Connection, schedule_id: int) -> datetime | None:
    """The latest slot that has its row; None when nothing was ever decided for a trigger."""
    query = select(func.coalesce(SLOT.c.until, SLOT.c.execution_date, type_=SLOT.c.until.type))
    query = query.where(SLOT.c.pipeline_schedule_id == schedule_id)
    return tx.execute(query.order_by(SLOT.c.execution_date.desc()).limit(1)).scalar()


def last_run_end(tx: Connection, schedule_id: int) -> tuple[bool, datetime | None]:
    """Of the run of a trigger's newest slot that has one: whether it is still live, and when it ended.

    By the ledger, since ids tell nothing of time: each node gives them out from a block of its own.
    """
    query = select(RUN.c.completed_at).join(SLOT, SLOT.c.pipeline_run_id == RUN.c.id)
    query = query.where(SLOT.c.pipeline_schedule_id == schedule_id)
    row = tx.execute(query.order_by(SLOT.c.execution_date.desc()).limit(1)).first()
    return (row is not None and row.completed_at is None, row.completed_at if row else None)
