"""How a run ends without its owner's journal: its row, with the SLA it passed, and its blocks that are not over."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, or_, update

from app.models.states import BLOCK_TRANSITIONS, BlockStatus, RunStatus, sources
from app.store.sql import BLOCK, RUN


def late(now: datetime) -> dict[str, Any]:
    """Columns for whoever ends a run at `now`: that it passed its SLA, if it did and nobody has said so yet."""
    passed = RUN.c.sla_at < now
    unsaid = (RUN.c.sla_passed_at.is_(None) & passed, now)
    return {
        "passed_sla": or_(RUN.c.passed_sla, RUN.c.sla_at.is_not(None) & passed),
        "sla_passed_at": case(unsaid, else_=RUN.c.sla_passed_at),
    }


def late_at_birth(sla_at: datetime | None, now: datetime) -> dict[str, Any]:
    """The same for a run that is over as it is made."""
    return {"passed_sla": True, "sla_passed_at": now} if sla_at is not None and sla_at < now else {}


def end_waiting(
    tx: Connection,
    run_id: int,
    status: RunStatus,
    *,
    reason: str,
    detail: Mapping[str, Any] | None,
    now: datetime,
    **also: Any,
) -> None:
    """End a locked run that waits, with its blocks. `also`: other columns of it."""
    ended = {"status": status, "status_reason": reason, "status_detail": detail, "completed_at": now}
    tx.execute(update(RUN).where(RUN.c.id == run_id).values(**late(now) | ended | also))
    cancel_blocks(tx, run_id, reason=reason, now=now)


def cancel_blocks(tx: Connection, run_id: int, *, reason: str, now: datetime) -> None:
    """Cancel the blocks of a run that are not over."""
    tx.execute(
        update(BLOCK)
        .where(
            BLOCK.c.pipeline_run_id == run_id,
            BLOCK.c.status.in_(sources(BLOCK_TRANSITIONS, BlockStatus.CANCELLED)),
        )
        .values(status=BlockStatus.CANCELLED, status_reason=reason, completed_at=now, wake_at=None)
    )
