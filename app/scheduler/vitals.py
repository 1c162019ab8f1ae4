"""What an operator looks at first."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app import clock
from app.store import health
from app.store.db import Database


async def vitals(
    db: Database, *, ready: bool, paused: bool, ticked_at: datetime | None, driven: int
) -> Mapping[str, Any]:
    """The answer of `/health`; `driven` is how many runs go on here. Raises StoreUnavailable."""
    found = await db.read(health.facts, now=clock.now())
    if not db.shared:  # the file's lock is the lease
        found.nodes = [{**node, "lease_until": None} for node in found.nodes]
    return {
        "ready": ready,
        "paused": paused or found.paused,
        "scheduler_lag_s": 0.0 if paused else found.lag_s,
        "oldest_due_slot": found.oldest_due,
        "next_due": found.next_due,
        "last_tick_at": ticked_at,
        "nodes": found.nodes,
        "runs": {**found.runs, "driven_here": driven},
    }
