"""What the two dialects say differently, said once."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects import postgresql, sqlite

from app.models import tables, tables_access


def table(model: type) -> Table:
    """The Core table of a model."""
    return cast(Table, model.__table__)  # type: ignore[attr-defined]


ATTEMPT = table(tables.BlockAttempt)
BLOCK = table(tables.BlockRun)
HISTORY = table(tables.LimitHistory)
ID_BLOCK = table(tables.IdBlock)
IDEMPOTENCY = table(tables_access.IdempotencyKey)
JOURNAL = table(tables.NodeJournal)
LIMIT = table(tables.Limit)
LOG = table(tables.BlockLog)
META = table(tables.Meta)
NODE = table(tables.Node)
REVISION = table(tables.ScheduleRevision)
RUN = table(tables.PipelineRun)
SCHEDULE = table(tables.PipelineSchedule)
SECRET = table(tables_access.Secret)
SLOT = table(tables.ScheduleSlot)
TOMBSTONE = table(tables.Tombstone)
VERSION = table(tables.PipelineVersion)


def insert(tx: Connection, target: Table) -> Any:
    """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return insert_for(tx.dialect.name, target)


def insert_for(dialect: str, target: Table) -> Any:
    """The same for a dialect's name: for statements that are made once."""
    module: Any = postgresql if dialect == "postgresql" else sqlite
    return module.insert(target)


def take_seq(tx: Connection, count: int) -> list[int]:
    """The next `count` numbers of the one order that all starts and ends share. Call it after the lock.

    Postgres gives them from a sequence; on SQLite the one writer counts, from what the database last held.
    """
    if count <= 0:
        return []
    if tx.dialect.name == "postgresql":
        rows = tx.execute(text("SELECT nextval('event_seq') FROM generate_series(1, :n)"), {"n": count})
        return [row[0] for row in rows]
    last = tx.info.get("seq")
    if last is None:
        last = _last_seq(tx)
    tx.info["seq"] = last + count
    return list(range(last + 1, last + count + 1))


def _last_seq(tx: Connection) -> int:
    parts = (
        "SELECT max(s_seq) m FROM pipeline_run",
        "SELECT max(e_seq) FROM pipeline_run",
        "SELECT max(s_seq) FROM block_attempt",
        "SELECT max(e_seq) FROM block_attempt",
        "SELECT max(seq) FROM run_limit_history",
    )
    return tx.execute(text(f"SELECT max(m) FROM ({' UNION ALL '.join(parts)}) x")).scalar() or 0


def in_chunks(values: Sequence[Any], size: int = 500) -> list[Sequence[Any]]:
    """Slices of at most `size`: SQLite bounds the parameters of one statement."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def lock_named(tx: Connection, name: str) -> None:
    """Let one transaction at a time through under this name. SQLite has one writer anyway."""
    if tx.dialect.name == "postgresql":
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
