"""The facts behind `/health`, read in one snapshot."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from app.store import nodes, runs, schedules


@dataclass(slots=True)
class Facts:
    """What the database tells of the service; `lag_s` is how late the longest due trigger is."""

    lag_s: float
    oldest_due: datetime | None
    next_due: datetime | None
    nodes: list[dict[str, Any]]
    runs: dict[str, int]


def facts(tx: Connection, *, now: datetime) -> Facts:
    """Look at triggers, nodes and live runs."""
    next_due = schedules.next_due(tx)
    lag = max(0.0, (now - next_due) / timedelta(seconds=1)) if next_due else 0.0
    alive = [{**asdict(node), "state": node.state.value} for node in nodes.alive(tx)]
    oldest = next_due if next_due and next_due <= now else None
    return Facts(round(lag, 3), oldest, next_due, alive, runs.counts(tx))
