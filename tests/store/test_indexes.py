"""The schema has every index that the tables name, and what is asked again and again uses those of the living."""

from typing import Any, Final

from sqlalchemy import Connection, event, inspect

from app import clock
from app.models.tables import metadata
from app.store import looks, nodes, ownership, runs, waits
from app.store.db import Database
from app.store.opening import open_database
from tests.store.conftest import Bench

#: What leads to a run without a look at those that are over.
_LIVE: Final = (
    "INDEX ix_pipeline_run_running",
    "INDEX ix_pipeline_run_waiting",
    "INDEX ix_pipeline_run_sla",
    "INTEGER PRIMARY KEY (rowid=?)",
)


async def test_every_index_of_the_tables_is_there(database_url: str) -> None:
    db: Database = open_database(database_url)
    await db.open()
    try:
        found = await db.read(_indexes)
    finally:
        await db.close()
    wanted = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    assert wanted <= found


async def test_who_looks_for_live_runs_reads_none_that_is_over(sqlite_url: str) -> None:
    db = open_database(sqlite_url)
    await db.open()
    try:
        bench = Bench(db, "")
        bench.me, heir = await bench.node(), await bench.node()
        await bench.launch(await bench.new())
        (waiting,) = await bench.launch(await bench.new(), claim=False)
        await db.write(nodes.hand_over, bench.me, now=clock.now())
        plans = await db.write(_plans, heir, waiting.run.id)
    finally:
        await db.close()
    ways = [line for line in plans if " pipeline_run " in line]
    assert len(ways) > 9
    assert [line for line in ways if not any(index in line for index in _LIVE)] == []


def _plans(tx: Connection, node_id: str, run_id: int) -> list[str]:
    """How SQLite goes about all that is asked here."""
    asked: list[tuple[str, Any]] = []

    def hear(_tx: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(tx, "before_cursor_execute", hear)
    looks.news(tx, node_id, now=clock.now())
    runs.owned(tx, node_id)
    waits.facts(tx, run_id)
    ownership.takeover(tx, node_id, limit=5, now=clock.now())
    event.remove(tx, "before_cursor_execute", hear)
    return [
        row[3] for said, given in asked for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}", given)
    ]


def _indexes(tx: Connection) -> set[str]:
    if tx.dialect.name == "sqlite":  # its inspection leaves out indexes over expressions
        rows = tx.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")
        return set(rows.scalars())
    seen = inspect(tx)
    return {str(index["name"]) for table in seen.get_table_names() for index in seen.get_indexes(table)}
