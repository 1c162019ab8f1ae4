"""The slot ledger as readers see it: pages, and all that is known of a trigger at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from app.models.rows import RunRow, ScheduleRow, SlotRow
from app.models.states import ScheduleStatus, SlotOutcome
from app.store import nodes, runs, schedules
from app.store.runs import ANY_TIME, Span
from app.store.schedule_rows import COLUMNS, rows
from app.store.sql import REVISION, SCHEDULE, SLOT

_COLUMNS = (
    SLOT.c.pipeline_schedule_id,
    SLOT.c.execution_date,
    SLOT.c.outcome,
    SLOT.c.decided_at,
    SLOT.c.reason,
    SLOT.c.pipeline_run_id,
    SLOT.c.until,
    SLOT.c.slot_count,
    SLOT.c.detail,
    SLOT.c.decided_by,
    SLOT.c.revision,
)


def page(
    tx: Connection,
    schedule_id: int,
    *,
    limit: int,
    before: datetime | None = None,
    outcome: Sequence[str] | None = None,
    reason: Sequence[str] | None = None,
    dated: Span = ANY_TIME,
) -> list[SlotRow]:
    """The ledger of a trigger, newest first; `before` continues a page.

    `dated` bounds the execution date: from (a stretch that reaches into it included), and before.
    """
    query = _of(schedule_id)
    if before is not None:
        query = query.where(SLOT.c.execution_date < before)
    if outcome:
        query = query.where(SLOT.c.outcome.in_(outcome))
    if reason:
        query = query.where(SLOT.c.reason.in_(reason))
    since, end = dated
    if since is not None:
        query = query.where((SLOT.c.execution_date >= since) | (SLOT.c.until >= since))
    if end is not None:
        query = query.where(SLOT.c.execution_date < end)
    return [_row(row) for row in tx.execute(query.limit(limit))]


def to_fire(
    tx: Connection, *, limit: int, ids: Sequence[int] = (), pipelines: Sequence[str] = ()
) -> list[ScheduleRow]:
    """Active triggers that have something to come and no fault, those first that are looked at first."""
    query = select(*COLUMNS).where(
        SCHEDULE.c.next_fire_at.is_not(None),
        SCHEDULE.c.error.is_(None),
        SCHEDULE.c.status == ScheduleStatus.ACTIVE,
        SCHEDULE.c.deleted_at.is_(None),
    )
    if ids:
        query = query.where(SCHEDULE.c.id.in_(ids))
    if pipelines:
        query = query.where(SCHEDULE.c.pipeline_uuid.in_(pipelines))
    return rows(tx, query.order_by(SCHEDULE.c.next_fire_at, SCHEDULE.c.id).limit(limit))


@dataclass(frozen=True, slots=True)
class Revision:
    """What a trigger said from `at` on. `cursor_at` is the last slot that had been decided then."""

    revision: int
    at: datetime
    schedule_interval: str | None
    timezone: str | None
    status: ScheduleStatus
    cursor_at: datetime | None
    start_time: datetime | None
    #: this and `settings` are None in a revision of an older program
    last_enabled_at: datetime | None
    settings: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is on record about a trigger and one moment of it."""

    schedule: ScheduleRow
    deleted_at: datetime | None
    #: the definition that held at the moment; None before the trigger was made
    then: Revision | None
    #: the row that holds the moment, with its run; the newest row before it, and the first after it
    slot: SlotRow | None
    run: RunRow | None
    before: SlotRow | None
    after: SlotRow | None
    #: ids of the nodes that are neither stopped nor fenced
    alive: tuple[str, ...]


def known(tx: Connection, schedule_id: int, at: datetime) -> Known | None:
    """What is on record of a trigger, also a deleted one, around `at`; None when there never was such a trigger."""
    if (found := schedules.ever(tx, schedule_id)) is None:
        return None
    slot = _holding(tx, schedule_id, at)
    return Known(
        schedule=found[0],
        deleted_at=found[1],
        then=_revision_at(tx, schedule_id, at),
        slot=slot,
        run=runs.get(tx, slot.pipeline_run_id) if slot and slot.pipeline_run_id else None,
        before=_first(tx, _of(schedule_id).where(SLOT.c.execution_date < at)),
        after=_first(tx, _of(schedule_id, upwards=True).where(SLOT.c.execution_date > at)),
        alive=tuple(node.id for node in nodes.alive(tx)),
    )


def _holding(tx: Connection, schedule_id: int, at: datetime) -> SlotRow | None:
    """The row of the slot `at`, or of the stretch that `at` lies in."""
    row = _first(tx, _of(schedule_id).where(SLOT.c.execution_date <= at))
    if row is None or (row.until or row.execution_date) < at:
        return None
    return row


def _first(tx: Connection, query: Select[Any]) -> SlotRow | None:
    row = tx.execute(query.limit(1)).first()
    return _row(row) if row else None


def _revision_at(tx: Connection, schedule_id: int, at: datetime) -> Revision | None:
    """The definition that held at `at`."""
    columns = [REVISION.c[name] for name in Revision.__slots__]
    query = select(*columns).where(REVISION.c.schedule_id == schedule_id, REVISION.c.at <= at)
    row = tx.execute(query.order_by(REVISION.c.revision.desc()).limit(1)).first()
    return Revision(**{**row._mapping, "status": ScheduleStatus(row.status)}) if row else None


def _of(schedule_id: int, *, upwards: bool = False) -> Select[Any]:
    date = SLOT.c.execution_date
    query = select(*_COLUMNS).where(SLOT.c.pipeline_schedule_id == schedule_id)
    return query.order_by(date if upwards else date.desc())


def _row(row: Any) -> SlotRow:
    values = {**row._mapping, "outcome": SlotOutcome(row.outcome)}
    return SlotRow(count=values.pop("slot_count"), **values)
