"""What happened to a run, in order, read from its rows: the numbers that order starts and ends are the ids."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from app.models.states import RUN_TERMINAL
from app.store.sql import ATTEMPT, BLOCK, RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event of a run. `id` grows within the run; 0 is its creation."""

    id: int
    type: str
    at: datetime
    block_uuid: str | None = None
    attempt: int | None = None
    status: str | None = None
    reason: str | None = None


def page(tx: Connection, run_id: int, *, after: int, limit: int) -> list[EventRow]:
    """Up to `limit` events with an id above `after`, oldest first; none for a run that does not exist."""
    run = tx.execute(select(RUN).where(RUN.c.id == run_id)).first()
    if run is None:
        return []
    found = sorted((*_of_run(run), *_of_attempts(tx, run_id)), key=lambda event: event.id)
    return [event for event in found if event.id > after][:limit]


def _of_run(run: Any) -> Iterator[EventRow]:
    yield EventRow(id=0, type="run_created", at=run.created_at)
    if run.s_seq is not None:
        yield EventRow(id=run.s_seq, type="run_started", at=run.started_at)
    if run.status in RUN_TERMINAL:
        # A run that ended before it started has no number of its own: 1 is below all others.
        yield EventRow(
            id=run.e_seq or 1,
            type="run_ended",
            at=run.completed_at,
            status=run.status,
            reason=run.status_reason,
        )


def _of_attempts(tx: Connection, run_id: int) -> Iterator[EventRow]:
    query = (
        select(ATTEMPT, BLOCK.c.block_uuid)
        .join(BLOCK, BLOCK.c.id == ATTEMPT.c.block_run_id)
        .where(BLOCK.c.pipeline_run_id == run_id)
    )
    for row in tx.execute(query):
        common = {"block_uuid": row.block_uuid, "attempt": row.attempt}
        yield EventRow(id=row.s_seq, type="block_started", at=row.started_at, **common)
        if row.e_seq is not None:
            yield EventRow(id=row.e_seq, type="block_ended", at=row.ended_at, status=row.outcome, **common)
