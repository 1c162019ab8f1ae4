"""What a node asks every second, each in one read: a transaction for every question is most of what idling costs."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.models.rows import ScheduleRow
from app.store import admit, ownership, pausing, runs, sla, slots
from app.store.ownership import Estate


@dataclass(frozen=True, slots=True)
class Due:
    """What a tick begins with: the triggers that are due, and when the next one is."""

    paused: bool
    schedules: list[ScheduleRow]
    next_due: datetime | None


def due(tx: Connection, *, now: datetime, limit: int) -> Due:
    """At most `limit` triggers, the longest due first; none while everything is paused."""
    if pausing.paused(tx) is not None:
        return Due(True, [], slots.next_due(tx))
    return Due(False, slots.due(tx, now=now, limit=limit), slots.next_due(tx))


@dataclass(frozen=True, slots=True)
class News:
    """What a lost wake-up would have told a node."""

    cancelled: list[int]
    estate: Estate
    waits: bool
    sla: bool


def news(tx: Connection, node_id: str, *, now: datetime) -> News:
    """Own runs to be stopped, runs of the dead, whether a run waits, and whether an SLA has passed unsaid."""
    return News(
        runs.cancel_asked(tx, node_id),
        ownership.estate(tx),
        admit.any_waits(tx),
        sla.is_due(tx, now=now),
    )
