"""What a tick reads and writes: triggers that are due, how they move on, the rows of their slots."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, update

from app.models.rows import ScheduleRow
from app.models.states import RunStatus, ScheduleStatus, ScheduleType, SlotOutcome
from app.store.schedule_rows import COLUMNS, rows
from app.store.sla import sla_of_slot
from app.store.sql import RUN, SCHEDULE, SLOT, in_chunks

#: A trigger that was set aside is looked at again so often.
LOOK_AGAIN: Final = timedelta(seconds=60)
_ACTIVE: Final = (SCHEDULE.c.status == ScheduleStatus.ACTIVE, SCHEDULE.c.deleted_at.is_(None))


def due(tx: Connection, *, now: datetime, limit: int) -> list[ScheduleRow]:
    """Active triggers to be looked at, the longest due first; those set aside a minute ago among them."""
    if (first := tx.execute(_FIRST).scalar()) is None or first > now:
        return []  # as a rule: asked every second
    query = select(*COLUMNS).where(
        SCHEDULE.c.next_fire_at.is_not(None), SCHEDULE.c.next_fire_at <= now, *_ACTIVE
    )
    return rows(tx, query.order_by(SCHEDULE.c.next_fire_at, SCHEDULE.c.id).limit(limit))


# Made once: building a statement and its cache key costs more than asking for it, and these are asked every second.
# They use the index of next_fire_at, which a min() beside another condition would not.
_FIRST = (
    select(SCHEDULE.c.next_fire_at)
    .where(SCHEDULE.c.next_fire_at.is_not(None), *_ACTIVE)
    .order_by(SCHEDULE.c.next_fire_at)
    .limit(1)
)
_NEXT = _FIRST.where(SCHEDULE.c.error.is_(None))


def next_due(tx: Connection) -> datetime | None:
    """When the next trigger is due that is not quarantined."""
    return tx.execute(_NEXT).scalar()


def of_ids(tx: Connection, ids: Sequence[int]) -> list[ScheduleRow]:
    """Active triggers by their ids."""
    queries = [select(*COLUMNS).where(SCHEDULE.c.id.in_(part), *_ACTIVE) for part in in_chunks(ids)]
    return [row for query in queries for row in rows(tx, query)]


def never_seen(tx: Connection, *, limit: int) -> list[ScheduleRow]:
    """Active time triggers that somebody has written into the table, and that nothing has looked at."""
    query = select(*COLUMNS).where(
        SCHEDULE.c.next_fire_at.is_(None),
        SCHEDULE.c.cursor_at.is_(None),
        SCHEDULE.c.error.is_(None),
        SCHEDULE.c.schedule_type == ScheduleType.TIME,
        *_ACTIVE,
    )
    return rows(tx, query.order_by(SCHEDULE.c.id).limit(limit))


#: A trigger as it was read, its new cursor, and when to look at it next.
Move = tuple[ScheduleRow, datetime | None, datetime | None]


def advance(tx: Connection, moves: Sequence[Move]) -> set[int]:
    """Move triggers on that nobody has changed since they were read; the ids of those.

    This compare-and-set makes a slot fire once.
    """
    state = {}
    for part in in_chunks(sorted({row.id for row, _cursor, _next in moves})):
        query = select(SCHEDULE.c.id, SCHEDULE.c.revision, SCHEDULE.c.cursor_at)
        query = query.where(SCHEDULE.c.id.in_(part), *_ACTIVE).order_by(SCHEDULE.c.id)
        locked = tx.execute(query.with_for_update(key_share=True))
        state.update({row.id: (row.revision, row.cursor_at) for row in locked})
    ours = [move for move in moves if state.get(move[0].id) == (move[0].revision, move[0].cursor_at)]
    if ours:
        tx.execute(_ADVANCE, [{"of": row.id, "cursor": cursor, "look": look} for row, cursor, look in ours])
    return {row.id for row, _cursor, _next in ours}


_ADVANCE: Final = (
    update(SCHEDULE)
    .where(SCHEDULE.c.id == bindparam("of"))
    .values(cursor_at=bindparam("cursor"), next_fire_at=bindparam("look"))
)


def quarantine(tx: Connection, faults: Sequence[tuple[ScheduleRow, str]], *, now: datetime) -> None:
    """Set triggers aside, each with its fault: shown with it they do not fire, and are looked at again in a minute."""
    rows = [{"of": row.id, "seen": row.revision, "fault": fault} for row, fault in faults]
    if rows:
        tx.execute(_SET_ASIDE.values(error=bindparam("fault"), next_fire_at=now + LOOK_AGAIN), rows)


_SET_ASIDE = update(SCHEDULE).where(
    SCHEDULE.c.id == bindparam("of"), SCHEDULE.c.revision == bindparam("seen")
)


def look_again(tx: Connection, *, now: datetime) -> None:
    """Let every trigger that was set aside be looked at now: what was wrong may have been mended in the project."""
    set_aside = (SCHEDULE.c.error.is_not(None), SCHEDULE.c.next_fire_at > now)
    tx.execute(update(SCHEDULE).where(*set_aside, *_ACTIVE).values(next_fire_at=now))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSlot:
    """A decision about one slot, or about a stretch of them."""

    execution_date: datetime
    outcome: SlotOutcome
    reason: str | None = None
    detail: Mapping[str, Any] | None = None
    pipeline_run_id: int | None = None
    until: datetime | None = None
    count: int = 1


def write_slots(
    tx: Connection, schedule: ScheduleRow, slots: Iterable[NewSlot], *, node_id: str, now: datetime
) -> None:
    """Write the decisions about one trigger."""
    write_all_slots(tx, [(schedule, slot) for slot in slots], node_id=node_id, now=now)


def write_all_slots(
    tx: Connection, decided: Iterable[tuple[ScheduleRow, NewSlot]], *, node_id: str, now: datetime
) -> None:
    """Write decisions. A slot that has one already is a primary key fault: it rolls the tick back."""
    found = [
        {
            "pipeline_schedule_id": schedule.id,
            "execution_date": slot.execution_date,
            "outcome": slot.outcome,
            "reason": slot.reason,
            "detail": slot.detail,
            "pipeline_run_id": slot.pipeline_run_id,
            "until": slot.until,
            "slot_count": slot.count,
            "sla_at": sla_of_slot(slot.outcome, slot.execution_date, schedule.sla),
            "revision": schedule.revision,
            "decided_by": node_id,
            "decided_at": now,
        }
        for schedule, slot in decided
    ]
    if found:
        tx.execute(SLOT.insert(), found)


def last_decided(tx: Connection, schedule_id: int) -> datetime | None:
    """The latest slot that has its row; None when nothing was ever decided for a trigger."""
    query = select(func.coalesce(SLOT.c.until, SLOT.c.execution_date, type_=SLOT.c.until.type))
    query = query.where(SLOT.c.pipeline_schedule_id == schedule_id)
    return tx.execute(query.order_by(SLOT.c.execution_date.desc()).limit(1)).scalar()


def last_runs(tx: Connection, schedule_id: int, limit: int) -> tuple[bool, datetime | None, int]:
    """Of the runs of a trigger's newest slots: whether the newest is live, when it ended, how many failed in a row.

    By the ledger, since ids tell nothing of time: each node gives them out from a block of its own.
    """
    query = select(RUN.c.completed_at, RUN.c.status).join(SLOT, SLOT.c.pipeline_run_id == RUN.c.id)
    query = query.where(SLOT.c.pipeline_schedule_id == schedule_id)
    found = tx.execute(query.order_by(SLOT.c.execution_date.desc()).limit(limit)).all()
    if not found:
        return False, None, 0
    failures = 0
    for row in found:
        if row.completed_at is None or row.status == RunStatus.COMPLETED:
            break
        failures += 1
    return found[0].completed_at is None, found[0].completed_at, failures


def runtimes(tx: Connection, schedule_id: int, limit: int) -> list[float]:
    """Seconds that the newest completed runs of a trigger took, the newest first."""
    query = select(RUN.c.started_at, RUN.c.completed_at).where(
        RUN.c.pipeline_schedule_id == schedule_id,
        RUN.c.status == RunStatus.COMPLETED,
        RUN.c.started_at.is_not(None),
    )
    found = tx.execute(query.order_by(RUN.c.id.desc()).limit(limit))
    return [(row.completed_at - row.started_at).total_seconds() for row in found]
