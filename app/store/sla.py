"""When runs and slots must be done, and what is written, once, when they are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from app.models.states import RunStatus, SlotOutcome
from app.store.endings import end_waiting
from app.store.sql import RUN, SCHEDULE, SLOT

#: The reason of a run that was stopped for it.
REASON: Final = "sla"
#: How such a run ends.
ENDS: Final[Mapping[str, RunStatus]] = {"cancel": RunStatus.CANCELLED, "fail": RunStatus.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A run that has just passed its SLA, as it now stands, or (`run_id` None) a slot that got no run."""

    pipeline_uuid: str
    schedule_id: int | None
    sla_at: datetime
    run_id: int | None = None
    execution_date: datetime | None = None
    status: RunStatus | None = None
    reason: str | None = None


_DUE: Final = (RUN.c.sla_at.is_not(None), RUN.c.sla_passed_at.is_(None), RUN.c.completed_at.is_(None))
_PASSED: Final = (
    RUN.c.id,
    RUN.c.pipeline_uuid,
    RUN.c.pipeline_schedule_id,
    RUN.c.sla_at,
    RUN.c.execution_date,
    RUN.c.status,
    RUN.c.options,
    RUN.c.created_at,
)
_FIRST = select(RUN.c.id).where(*_DUE, RUN.c.sla_at <= bindparam("now", type_=RUN.c.sla_at.type)).limit(1)
_NEXT_SLOT = (
    select(SLOT.c.execution_date)
    .where(
        SLOT.c.sla_at.is_not(None),
        SLOT.c.sla_passed_at.is_(None),
        SLOT.c.sla_at <= bindparam("now", type_=SLOT.c.sla_at.type),
    )
    .limit(1)
)


def is_due(tx: Connection, *, now: datetime) -> bool:
    """Whether any run or slot has passed its SLA unsaid; two looks into indexes that hold nothing else."""
    at = {"now": now}
    return tx.execute(_FIRST, at).first() is not None or tx.execute(_NEXT_SLOT, at).first() is not None


def sweep(tx: Connection, *, now: datetime, limit: int = 500) -> list[Passed]:
    """Say of up to `limit` live runs that they have passed their SLA. One that waits ends here if it is to."""
    pick = select(*_PASSED).where(*_DUE, RUN.c.sla_at <= now).order_by(RUN.c.id).limit(limit)
    rows = tx.execute(pick.with_for_update(skip_locked=True, key_share=True, of=RUN)).all()
    return [_say(tx, row, now=now) for row in rows]


def pass_now(tx: Connection, run_id: int, *, now: datetime) -> Passed | None:
    """The same for one run; None when it is not due, or it has been said."""
    pick = select(*_PASSED).where(*_DUE, RUN.c.id == run_id, RUN.c.sla_at <= now)
    row = tx.execute(pick.with_for_update(key_share=True, of=RUN)).first()
    return _say(tx, row, now=now) if row is not None else None


def _say(tx: Connection, row: Any, *, now: datetime) -> Passed:
    now = max(now, row.created_at)
    said = {"passed_sla": True, "sla_passed_at": now}
    end = ENDS.get(row.options.get("on_sla", "alert")) if row.status == RunStatus.INITIAL else None
    if end is None:
        tx.execute(update(RUN).where(RUN.c.id == row.id).values(**said))
    else:
        detail = {"sla_at": row.sla_at.isoformat(), "waited": True}
        end_waiting(tx, row.id, end, reason=REASON, detail=detail, now=now, **said)
    return Passed(
        run_id=row.id,
        pipeline_uuid=row.pipeline_uuid,
        schedule_id=row.pipeline_schedule_id,
        sla_at=row.sla_at,
        execution_date=row.execution_date,
        status=end or RunStatus(row.status),
        reason=REASON if end else None,
    )


def closed_late(tx: Connection, run_id: int) -> Passed | None:
    """A run whose own end said that it had passed its SLA; None when that was said before, or is not so."""
    by_its_end = or_(
        RUN.c.sla_passed_at == RUN.c.completed_at,
        and_(
            RUN.c.status_reason == REASON, RUN.c.sla_passed_at == RUN.c.sla_at
        ),  # its clock was ahead of ours
    )
    row = tx.execute(select(*_PASSED).where(RUN.c.id == run_id, by_its_end)).first()
    if row is None:
        return None
    return Passed(
        run_id=row.id,
        pipeline_uuid=row.pipeline_uuid,
        schedule_id=row.pipeline_schedule_id,
        sla_at=row.sla_at,
        execution_date=row.execution_date,
        status=RunStatus(row.status),
    )


def sla_of_slot(outcome: SlotOutcome, execution_date: datetime, sla: int | None) -> datetime | None:
    """When a slot that gets no run is late: only one that was missed, not one that was left out on purpose."""
    return execution_date + timedelta(seconds=sla) if sla and outcome is SlotOutcome.MISSED else None


def sweep_slots(tx: Connection, *, now: datetime, limit: int = 500) -> list[Passed]:
    """Say of up to `limit` missed slots that the SLA of the run they should have had has passed."""
    pick = (
        select(SLOT.c.pipeline_schedule_id, SLOT.c.execution_date, SLOT.c.sla_at, SCHEDULE.c.pipeline_uuid)
        .join(SCHEDULE, SCHEDULE.c.id == SLOT.c.pipeline_schedule_id)
        .where(SLOT.c.sla_at.is_not(None), SLOT.c.sla_passed_at.is_(None), SLOT.c.sla_at <= now)
        .order_by(SLOT.c.pipeline_schedule_id, SLOT.c.execution_date)
        .limit(limit)
        .with_for_update(skip_locked=True, of=SLOT)
    )
    rows = tx.execute(pick).all()
    said = [{"schedule": row.pipeline_schedule_id, "date": row.execution_date, "now": now} for row in rows]
    if said:
        tx.execute(_SAY_SLOT, said)
    return [
        Passed(
            pipeline_uuid=row.pipeline_uuid,
            schedule_id=row.pipeline_schedule_id,
            sla_at=row.sla_at,
            execution_date=row.execution_date,
        )
        for row in rows
    ]


_SAY_SLOT = (
    update(SLOT)
    .where(SLOT.c.pipeline_schedule_id == bindparam("schedule"), SLOT.c.execution_date == bindparam("date"))
    .values(sla_passed_at=bindparam("now"))
)
