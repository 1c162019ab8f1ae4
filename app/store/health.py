"""The facts behind `/health`, read in one snapshot."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from app.store import nodes, pausing, runs, slots
from app.store.db import Database
from app.store.sql import META, insert
from app.store.sqlite import SqliteDatabase


@dataclass(slots=True)
class Facts:
    """What the database tells of the service; `lag_s` is how late the longest due trigger is, 0 in a pause of all."""

    lag_s: float
    oldest_due: datetime | None
    next_due: datetime | None
    nodes: list[dict[str, Any]]
    runs: dict[str, int]
    paused: bool = False


def facts(tx: Connection, *, now: datetime) -> Facts:
    """Look at triggers, nodes and live runs."""
    next_due = slots.next_due(tx)
    paused = pausing.paused(tx) is not None
    lag = max(0.0, (now - next_due) / timedelta(seconds=1)) if next_due and not paused else 0.0
    alive = [{**asdict(node), "state": node.state.value} for node in nodes.alive(tx)]
    oldest = next_due if next_due and next_due <= now else None
    return Facts(round(lag, 3), oldest, next_due, alive, runs.counts(tx), paused)


async def prove(db: Database) -> None:
    """Raise StoreUnavailable while the database cannot do its work; a write that failed is tried again here."""
    await db.read(_answers)
    if isinstance(db, SqliteDatabase) and db.trouble is not None:
        await db.write(_touch)


def _answers(tx: Connection) -> None:
    tx.execute(select(META.c.key).limit(1)).first()


def _touch(tx: Connection) -> None:
    """A write that reaches the disk and means nothing."""
    statement = insert(tx, META).values(key="written_at_trouble", value="1")
    tx.execute(statement.on_conflict_do_update(index_elements=[META.c.key], set_={"value": META.c.value}))
