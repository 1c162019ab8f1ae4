"""What the two databases promise below the tables: atomic writes, honest refusals, schema versions."""

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.errors import StartRefused, StoreUnavailable
from app.store import migrate
from app.store.db import Tx
from app.store.ids import Ids
from app.store.opening import open_database
from app.store.sql import META, take_seq
from tests.store.conftest import Bench


def put(tx: Tx, key: str, value: str = "x") -> None:
    tx.execute(META.insert().values(key=key, value=value))


def keys(tx: Tx) -> list[str]:
    return sorted(tx.execute(META.select()).scalars())


def put_then_fail(tx: Tx, key: str) -> None:
    put(tx, key)
    raise ValueError("no")


async def test_a_write_that_raises_leaves_nothing_and_hurts_no_other(bench: Bench) -> None:
    results = await asyncio.gather(
        bench.db.write(put, "a"),
        bench.db.write(put_then_fail, "b"),
        bench.db.write(put, "c"),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValueError)
    assert await bench.db.read(keys) == ["a", "c"]


async def test_a_constraint_is_told_to_its_caller(bench: Bench) -> None:
    await bench.db.write(put, "a")
    with pytest.raises(IntegrityError):
        await bench.db.write(put, "a")


async def test_a_read_cannot_write(bench: Bench) -> None:
    with pytest.raises(StoreUnavailable):
        await bench.db.read(put, "a")


async def test_ids_never_repeat(bench: Bench) -> None:
    one, two = Ids(bench.db, "thing", 10), Ids(bench.db, "thing", 10)
    batches = await asyncio.gather(*(ids.take(n) for n in (3, 8, 25) for ids in (one, two) for _ in range(5)))
    given = [i for batch in batches for i in batch]
    assert len(given) == len(set(given))


async def test_unused_ids_are_given_out_again_unless_others_came_after(bench: Bench) -> None:
    one = Ids(bench.db, "thing", 10)
    assert await one.take(3) == range(1, 4)
    await one.close()
    again, late = Ids(bench.db, "thing", 10), Ids(bench.db, "thing", 10)
    assert await again.take(2) == range(4, 6)
    assert await late.take(1) == range(14, 15)
    await again.close()
    assert await Ids(bench.db, "thing", 10).take(1) == range(24, 25)


async def test_sequence_numbers_only_grow(bench: Bench) -> None:
    first = await bench.db.write(take_seq, 3)
    second = await bench.db.write(take_seq, 2)
    assert first == sorted(first)
    assert second[0] > first[-1]


async def test_the_schema_is_what_the_models_say(bench: Bench) -> None:
    assert await bench.db.read(migrate.differences) == []


def test_a_new_database_gets_the_newest_schema(blank_database_url: str) -> None:
    migrate.upgrade(blank_database_url)
    migrate.upgrade(blank_database_url)  # again: nothing to do
    assert asyncio.run(_version(blank_database_url)) == migrate.HEAD
    newest = max(path.stem.split("_")[0] for path in (migrate.scripts() / "versions").glob("*.py"))
    assert newest == migrate.HEAD


async def _version(url: str) -> str | None:
    db = open_database(url)
    await db.open()
    try:
        return await db.read(migrate.current)
    finally:
        await db.close()


def test_two_services_that_upgrade_at_once_both_succeed(blank_postgres_url: str) -> None:
    threads = [threading.Thread(target=migrate.upgrade, args=(blank_postgres_url,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(_version(blank_postgres_url)) == migrate.HEAD


async def test_a_newer_schema_is_refused(bench: Bench) -> None:
    await bench.db.write(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StartRefused, match="9999"):
        await asyncio.to_thread(migrate.upgrade, bench.db.url)


async def test_a_second_service_on_one_sqlite_file_is_refused(sqlite_url: str) -> None:
    first, second = open_database(sqlite_url), open_database(sqlite_url)
    await first.open()
    with pytest.raises(StartRefused, match="Another service"):
        await second.open()
    await first.close()


async def test_a_tool_may_look_at_a_file_that_is_being_served(sqlite_url: str) -> None:
    service, tool = open_database(sqlite_url), open_database(sqlite_url, exclusive=False)
    await service.open()
    await service.write(put, "a")
    await tool.open()
    assert await tool.read(keys) == ["a"]
    with pytest.raises(StoreUnavailable):
        await tool.write(put, "b")
    await tool.close()
    await service.close()


async def test_an_absent_postgres_is_said_so() -> None:
    db = open_database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable):
        await db.open()
    await db.close()


async def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database, " * 100)
    db = open_database(f"sqlite:///{path}")
    with pytest.raises((StoreUnavailable, Exception), match="not a database"):
        await db.open()
        await db.read(keys)
    await db.close()


def test_other_databases_are_refused() -> None:
    with pytest.raises(StartRefused, match="mysql"):
        open_database("mysql://x/y")
