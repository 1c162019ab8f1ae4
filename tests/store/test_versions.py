"""Versions of the schema: up, down and up again with rows, and a program of the version before on the newest one."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, inspect, text

from app.errors import StartRefused
from app.models.columns import to_us
from app.store import apart, migrate
from app.store.opening import open_database
from app.store.sqlite_file import take_lock
from tests.invariants import assert_hold
from tests.store.conftest import AT, Bench


def to_version(tx: Connection, version: str) -> None:
    """Move a database to a version, down or up, as the migrations of this program do it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrate.scripts()).replace("%", "%%"))
    config.attributes["connection"] = tx
    there = migrate.current(tx)
    (command.upgrade if there is None or there < version else command.downgrade)(config, version)


def counts(tx: Connection) -> dict[str, int]:
    names = sorted(inspect(tx).get_table_names())
    return {name: tx.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one() for name in names}


async def fill(url: str) -> None:
    """Runs in several states, with what belongs to them."""
    db = open_database(url)
    await db.open()
    bench = Bench(db, "")
    bench.me = await bench.node()
    for _ in range(3):
        await bench.running()
    await bench.launch(await bench.new(), claim=False)
    await db.close()


async def do(url: str, fn: Any, *args: Any) -> Any:
    return await asyncio.to_thread(apart.run, url, lambda tx: fn(tx, *args), write=True)


def versions() -> list[str]:
    return sorted(path.stem.split("_")[0] for path in (migrate.scripts() / "versions").glob("0*.py"))


async def test_down_and_up_again_keeps_every_row_of_the_older_schema(database_url: str) -> None:
    await fill(database_url)
    before = await do(database_url, counts)
    oldest = versions()[0]
    await do(database_url, to_version, oldest)
    older = await do(database_url, counts)
    assert older == {name: before[name] for name in older}
    assert await asyncio.to_thread(migrate.upgrade, database_url) == oldest
    again = await do(database_url, counts)
    assert {name: again[name] for name in older} == older
    assert await do(database_url, migrate.differences) == []
    db = open_database(database_url)
    await db.open()
    await assert_hold(db)
    await db.close()


async def test_rows_of_the_version_before_come_through_the_upgrade(blank_database_url: str) -> None:
    url, before = blank_database_url, versions()[-2]
    await do(url, to_version, before)
    await do(url, _as_the_version_before)
    rows = await do(url, counts)
    assert await asyncio.to_thread(migrate.upgrade, url) == before
    assert await do(url, migrate.differences) == []
    after = await do(url, counts)
    assert {name: after[name] for name in rows} == rows


async def test_a_program_of_the_version_before_works_on_with_the_newest_schema(
    blank_database_url: str,
) -> None:
    """A rolling upgrade: the first new node migrates, the old ones go on with the statements they know."""
    url = blank_database_url
    await asyncio.to_thread(migrate.upgrade, url)
    await do(url, _as_the_version_before)


def _as_the_version_before(tx: Connection) -> None:
    """Its tables, as its own migrations made them: insert, read and update with these columns and no other."""
    known = MetaData()
    known.reflect(bind=_pristine(versions()[-2]), only=lambda name, _: name != "alembic_version")
    when: Any = AT if tx.dialect.name == "postgresql" else to_us(AT)
    for table in known.sorted_tables:
        row = {c.name: _value(c, when) for c in table.columns if not c.nullable or c.name in _ALSO}
        tx.execute(text(_insert(table.name, row, tx.dialect.name)), row)
        read = ", ".join(f'"{column.name}"' for column in table.columns)
        assert tx.execute(text(f'SELECT {read} FROM "{table.name}"')).one()
        column = next(iter(table.primary_key.columns)).name
        tx.execute(text(f'UPDATE "{table.name}" SET "{column}" = "{column}"'))


_ALSO = {"owner", "pipeline_run_id"}
_WORDS = {
    "state": "live",
    "schedule_type": "time",
    "managed_by": "api",
    "cause": "api",
    "kind": "block",
    "outcome": "run",
    "lines": "[]",
}
_STATUS = {"pipeline_schedule": "active", "schedule_revision": "active"}
_JSON = {"variables", "settings", "event_variables", "options", "metrics"}


def _value(column: Any, when: Any) -> Any:
    name = column.name
    if name in ("id", "owner", "slot_count") or name.endswith("_id"):
        return "n" if "CHAR" in str(column.type) or "TEXT" in str(column.type) else 1
    if name in _JSON:
        return "{}"
    if name == "tags":
        return "[]"
    if name == "status":
        return _STATUS.get(column.table.name, "initial")
    if name.endswith(("_at", "_date", "_until")) or name == "at":
        return when
    if name in _WORDS:
        return _WORDS[name]
    kind = str(column.type)
    if "BOOL" in kind:
        return False
    return "x" if "TEXT" in kind or "CHAR" in kind else 1


def _insert(table: str, row: dict[str, Any], dialect: str) -> str:
    def bound(name: str) -> str:
        cast = dialect == "postgresql" and (name in _JSON or name == "tags")
        return f"CAST(:{name} AS jsonb)" if cast else f":{name}"

    names = ", ".join(f'"{name}"' for name in row)
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join(map(bound, row))})'


_PRISTINE: dict[str, Any] = {}


def _pristine(version: str) -> Any:
    """A SQLite database in memory at a version: what its programs know."""
    if version not in _PRISTINE:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        engine = create_engine("sqlite://", poolclass=StaticPool)
        with engine.connect() as tx:
            to_version(tx, version)
            tx.commit()
        _PRISTINE[version] = engine
    return _PRISTINE[version]


@pytest.fixture(autouse=True, scope="module")
def _leave_nothing() -> Iterator[None]:
    yield
    for engine in _PRISTINE.values():
        engine.dispose()


async def test_a_program_that_is_older_than_the_schema_is_refused(database_url: str) -> None:
    await do(database_url, lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StartRefused, match=f"has schema 9999, this program knows {migrate.HEAD}") as refused:
        await asyncio.to_thread(migrate.upgrade, database_url)
    assert "newer" in refused.value.hint


@pytest.mark.parametrize(
    "query", ["sslmode=prefer", "application_name=mine&sslmode=disable", "options=-c%20search_path%3Dpublic"]
)
async def test_tools_take_the_urls_that_the_service_takes(blank_postgres_url: str, query: str) -> None:
    url = f"{blank_postgres_url}&{query}"
    assert await asyncio.to_thread(migrate.upgrade, url) is None
    db = open_database(url)
    await db.open()
    await db.close()


async def test_nothing_that_a_tool_does_times_out(postgres_url: str) -> None:
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert await do(postgres_url, lambda tx, name: tx.execute(text(f"SHOW {name}")).scalar(), name) == "0"


async def test_an_upgrade_waits_for_nobody_when_there_is_nothing_to_do(
    sqlite_url: str, tmp_path: Path
) -> None:
    with take_lock(tmp_path / "runwright.db"):
        assert await asyncio.to_thread(migrate.upgrade, sqlite_url) == migrate.HEAD
