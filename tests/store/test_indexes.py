"""The schema that migrations make has every index that the tables name: a queue without one is read in full."""

from sqlalchemy import Connection, inspect

from app.models.tables import metadata
from app.store.db import Database
from app.store.opening import open_database


async def test_every_index_of_the_tables_is_there(database_url: str) -> None:
    db: Database = open_database(database_url)
    await db.open()
    try:
        found = await db.read(_indexes)
    finally:
        await db.close()
    wanted = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    assert wanted <= found


def _indexes(tx: Connection) -> set[str]:
    if tx.dialect.name == "sqlite":  # its inspection leaves out indexes over expressions
        rows = tx.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'")
        return set(rows.scalars())
    seen = inspect(tx)
    return {str(index["name"]) for table in seen.get_table_names() for index in seen.get_indexes(table)}
