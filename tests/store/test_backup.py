"""A copy taken while the service writes, and what a restore makes safe before anybody serves it."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from app import clock
from app.errors import Conflict, InvalidInput, LeaseLost, NotFound, RunwrightError, StartRefused
from app.models.states import BlockStatus, NodeState, Outcome
from app.store import archive, backup, migrate, nodes, ownership, runs
from app.store.db import Tx
from app.store.ids import Ids, take_block
from app.store.opening import open_database, sqlite_path
from app.store.sql import META, NODE
from app.store.units import Finish, Unit
from tests.invariants import assert_hold
from tests.postgres import binaries
from tests.store.conftest import Bench, chain
from tests.store.test_versions import do, to_version, versions


@pytest.fixture(autouse=True)
def client_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the server that the tests run."""
    monkeypatch.setenv("PATH", f"{binaries()}:{os.environ['PATH']}")


async def copy(url: str, file: Path, **options: bool) -> str:
    return await asyncio.to_thread(backup.backup, url, file, **options)


async def restore(url: str, file: Path, *, force: bool = False) -> backup.Restored:
    return await asyncio.to_thread(backup.restore, url, file, force=force, now=clock.now())


async def bench_on(url: str) -> Bench:
    db = open_database(url)
    await db.open()
    bench = Bench(db, "")
    bench.me = await bench.node()
    return bench


async def stop(bench: Bench) -> None:
    """End the service as kill -9 and the end of its lease do."""
    late = clock.now() - timedelta(seconds=1)
    await bench.db.write(
        lambda tx: tx.execute(update(NODE).where(NODE.c.id == bench.me).values(lease_until=late))
    )
    await bench.db.close()


async def is_refused(zombie: Bench, unit: Unit) -> bool:
    """Whether a flush of the old service, somehow at the new database, changes nothing."""
    try:
        (answer,) = await zombie.flush(unit)
    except LeaseLost:
        return True
    return isinstance(answer, LeaseLost)


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A migrated database and an empty one of the same kind."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url"), f"sqlite:///{tmp_path / 'other' / 'runwright.db'}"
    return request.getfixturevalue("postgres_url"), request.getfixturevalue("blank_postgres_url")


async def test_a_run_under_way_is_taken_over_from_the_copy_and_nothing_else_owns_it(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    url, other = pair
    service = await bench_on(url)
    run, new = await service.running()
    done = Finish(
        block_run_id=new.blocks[0].id, attempt=1, outcome=Outcome.COMPLETED, status=BlockStatus.COMPLETED
    )
    await copy(url, tmp_path / "copy")  # while it is served
    later, _ = await service.running()  # and this the copy does not know
    restored = await restore(other, tmp_path / "copy")
    assert (restored.fenced, restored.live_runs) == (1, 1)

    db = open_database(other)
    await db.open()
    await assert_hold(db)
    heir = Bench(db, await Bench(db, "").node())
    (taken,) = await db.write(ownership.takeover, heir.me, limit=10, now=clock.now())
    assert (taken.run_id, taken.epoch) == (run.id, run.epoch + 1)
    assert await is_refused(Bench(db, service.me), Unit(run_id=run.id, epoch=run.epoch, finishes=(done,)))
    assert await db.read(runs.get, later.id) is None
    fresh, _ = await heir.running()
    assert fresh.id > later.id + 1000  # an id that somebody may know is not another run
    await assert_hold(db)
    await db.close()
    await service.db.close()


async def test_every_kind_of_id_goes_on_beyond_those_of_the_database_that_was_there(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    url, _ = pair
    service = await bench_on(url)
    await Ids(service.db, "pipeline_schedule", size=1).take(3)
    await copy(url, tmp_path / "copy")
    await service.db.write(take_block, "pipeline_schedule", 5_000_000)
    await stop(service)
    await restore(url, tmp_path / "copy", force=True)
    again = await bench_on(url)
    (given,) = await Ids(again.db, "pipeline_schedule", size=1).take()
    assert given > 5_000_000
    await again.db.close()


async def test_a_database_with_data_is_replaced_only_by_force(pair: tuple[str, str], tmp_path: Path) -> None:
    url, _ = pair
    service = await bench_on(url)
    await service.db.write(lambda tx: tx.execute(META.insert().values(key="k", value="then")))
    await copy(url, tmp_path / "copy")
    await service.db.write(lambda tx: tx.execute(update(META).values(value="now")))
    await stop(service)
    with pytest.raises(Conflict, match="data"):
        await restore(url, tmp_path / "copy")
    assert await value(url) == "now"
    restored = await restore(url, tmp_path / "copy", force=True)
    assert await value(url) == "then"
    if restored.kept is not None:
        assert await value(f"sqlite:///{restored.kept}") == "now"


@pytest.mark.parametrize("version", versions()[:-1])
async def test_a_copy_of_an_older_schema_replaces_a_newer_database(
    blank_database_url: str, tmp_path: Path, version: str
) -> None:
    url = blank_database_url
    await do(url, to_version, version)
    await copy(url, tmp_path / "copy")
    await asyncio.to_thread(migrate.upgrade, url)
    assert (await restore(url, tmp_path / "copy", force=True)).schema == version
    assert await do(url, migrate.differences) == []


async def test_a_restore_that_fails_halfway_leaves_everything_as_it_was(
    postgres_url: str, tmp_path: Path
) -> None:
    service = await bench_on(postgres_url)
    await copy(postgres_url, tmp_path / "copy")
    await service.db.write(lambda tx: tx.execute(META.insert().values(key="k", value="now")))
    await stop(service)
    whole = (tmp_path / "copy").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-50])
    with pytest.raises(RunwrightError, match="pg_restore failed"):
        await restore(postgres_url, tmp_path / "cut", force=True)
    await do(postgres_url, lambda tx: tx.execute(text("CREATE VIEW mine AS SELECT * FROM meta")))
    with pytest.raises(RunwrightError, match=r"psql failed: .*other objects depend on them"):
        await restore(postgres_url, tmp_path / "copy", force=True)
    assert await value(postgres_url) == "now"


async def test_what_is_not_ours_stays_where_there_is_no_database_of_ours(
    postgres_url: str, blank_postgres_url: str, tmp_path: Path
) -> None:
    await copy(postgres_url, tmp_path / "copy")
    await do(blank_postgres_url, lambda tx: tx.execute(text("CREATE TABLE node (theirs int)")))
    with pytest.raises(RunwrightError, match=r'psql failed: .*"node" already exists'):
        await restore(blank_postgres_url, tmp_path / "copy")
    await do(blank_postgres_url, lambda tx: tx.execute(text("SELECT theirs FROM node")))


async def test_a_database_of_a_newer_program_is_not_replaced(postgres_url: str, tmp_path: Path) -> None:
    await copy(postgres_url, tmp_path / "copy")
    await do(postgres_url, lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StartRefused, match="9999") as refused:
        await restore(postgres_url, tmp_path / "copy", force=True)
    assert "empty database" in refused.value.hint


def _value(tx: Tx) -> str:
    return str(tx.execute(text("SELECT value FROM meta WHERE key = 'k'")).scalar())


async def value(url: str) -> str:
    db = open_database(url)
    await db.open()
    try:
        return await db.read(_value)
    finally:
        await db.close()


async def test_a_database_that_is_being_served_is_not_replaced(pair: tuple[str, str], tmp_path: Path) -> None:
    url, _ = pair
    service = await bench_on(url)
    await copy(url, tmp_path / "copy")
    with pytest.raises(StartRefused, match=r"pid") as refused:
        await restore(url, tmp_path / "copy", force=True)
    assert refused.value.hint
    assert [node.id for node in await service.db.read(nodes.alive)] == [service.me]
    await service.db.close()


async def test_a_copy_of_a_newer_program_is_refused_before_anything_changes(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    url, other = pair
    service = await bench_on(url)
    await service.db.write(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    await copy(url, tmp_path / "copy")
    await service.db.close()
    with pytest.raises(StartRefused, match="9999"):
        await restore(other, tmp_path / "copy")
    if (path := sqlite_path(other)) is not None:
        assert [file.name for file in path.parent.iterdir()] == ["runwright.db.lock"]
    else:
        assert await asyncio.to_thread(_tables, other) == 0


def _tables(url: str) -> int:
    from app.store import apart

    query = text("SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()")
    return apart.run(url, lambda tx: int(tx.execute(query).scalar_one()))


async def test_what_is_no_copy_is_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    _, other = pair
    junk = tmp_path / "junk"
    junk.write_bytes(b"PGDMP" if sqlite_path(other) else b"SQLite format 3\0")
    with pytest.raises(InvalidInput, match="no backup"):
        await restore(other, junk)
    with pytest.raises(NotFound):
        await restore(other, tmp_path / "nowhere")
    with pytest.raises(NotFound):
        await copy(other, tmp_path / "copy")  # nothing there to copy
    assert not (tmp_path / "copy").exists()


async def test_a_file_that_is_there_is_kept(pair: tuple[str, str], tmp_path: Path) -> None:
    url, _ = pair
    (tmp_path / "copy").write_text("dear to somebody")
    with pytest.raises(Conflict, match="there already"):
        await copy(url, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "dear to somebody"
    await copy(url, tmp_path / "copy", overwrite=True)
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0  # variables are in it
    assert not list(tmp_path.glob("*.partial"))


async def test_a_copy_is_one_moment_however_much_is_written_meanwhile(
    sqlite_url: str, tmp_path: Path
) -> None:
    service = await bench_on(sqlite_url)
    done = asyncio.Event()

    async def write() -> int:
        count = 0
        while not done.is_set():
            await service.running(chain(3))
            count += 1
        return count

    writing = asyncio.create_task(write())
    for number in range(5):
        await copy(sqlite_url, tmp_path / f"copy{number}")
    done.set()
    assert await writing > 0
    for number in range(5):
        db = open_database(f"sqlite:///{tmp_path / f'copy{number}'}", exclusive=False)
        await db.open()
        await assert_hold(db)
        await db.close()
    await service.db.close()


async def test_a_damaged_database_gives_no_copy_and_is_kept_beside_the_restored_one(
    sqlite_url: str, tmp_path: Path
) -> None:
    service = await bench_on(sqlite_url)
    await service.running()
    await copy(sqlite_url, tmp_path / "copy")
    await service.db.close()
    path = tmp_path / "runwright.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)
    damaged = path.read_bytes()
    with pytest.raises(RunwrightError, match=r"damaged|malformed"):
        await copy(sqlite_url, tmp_path / "bad")
    restored = await restore(sqlite_url, tmp_path / "copy", force=True)
    assert restored.kept is not None and restored.kept.read_bytes() == damaged
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    yield folder


async def test_without_the_client_tools_the_way_out_is_named(
    postgres_url: str, tmp_path: Path, no_tools: Path
) -> None:
    with pytest.raises(RunwrightError, match="pg_dump is not on this machine") as refused:
        await copy(postgres_url, tmp_path / "copy")
    assert "postgresql-client" in refused.value.hint
    old = no_tools / "pg_dump"
    old.write_text(
        "#!/bin/sh\necho 'pg_dump: error: aborting because of server version mismatch' >&2\nexit 1\n"
    )
    old.chmod(0o755)
    with pytest.raises(RunwrightError, match="version mismatch") as refused:
        await copy(postgres_url, tmp_path / "copy")
    assert "older" in refused.value.hint
    assert not (tmp_path / "copy").exists()


async def test_the_password_is_not_for_those_who_list_processes(
    postgres_url: str, tmp_path: Path, no_tools: Path
) -> None:
    told = no_tools / "pg_dump"
    told.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words; echo "$PGPASSWORD" > {tmp_path}/secret; exit 1\n'
    )
    told.chmod(0o755)
    with pytest.raises(RunwrightError):
        await asyncio.to_thread(backup._dump, "postgresql://me:hush@db/x?host=/tmp", tmp_path / "copy")
    assert "hush" not in (tmp_path / "words").read_text()
    assert "--dbname=postgresql://me@db/x?host=%2Ftmp" in (tmp_path / "words").read_text()
    assert (tmp_path / "secret").read_text() == "hush\n"


async def test_the_name_of_a_copy_is_on_disk_before_anybody_is_told(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, set[str]]] = []

    def fsync(handle: int) -> None:
        there = {path.name for path in (tmp_path / "backups").iterdir()}
        synced.append((Path(f"/proc/self/fd/{handle}").readlink(), there))

    monkeypatch.setattr(os, "fsync", fsync)
    await copy(sqlite_url, tmp_path / "backups" / "monday")
    assert synced[-1] == (tmp_path / "backups", {"monday"})
    archive.pack(tmp_path / "none", tmp_path / "backups" / "outputs")
    assert synced[-1] == (tmp_path / "backups", {"monday", "outputs"})


def test_outputs_go_into_an_archive_and_back(tmp_path: Path) -> None:
    outputs, file = tmp_path / "artifacts", tmp_path / "copy.artifacts.tar"
    (outputs / "1" / "a").mkdir(parents=True)
    (outputs / "1" / "a" / "0.parquet").write_bytes(b"frame")
    (outputs / "1" / "away").symlink_to("/etc/passwd")
    assert archive.pack(outputs, file) == 1
    shutil.rmtree(outputs)
    assert archive.unpack(file, outputs) == 1
    assert (outputs / "1" / "a" / "0.parquet").read_bytes() == b"frame"
    assert not (outputs / "1" / "away").exists()
    file.write_bytes(b"junk")
    with pytest.raises(InvalidInput):
        archive.unpack(file, outputs)
    with pytest.raises(NotFound):
        archive.unpack(tmp_path / "none", outputs)


async def test_the_copy_is_fenced_for_the_old_nodes_whatever_their_lease(
    sqlite_url: str, tmp_path: Path
) -> None:
    service = await bench_on(sqlite_url)
    await copy(sqlite_url, tmp_path / "copy")
    await service.db.close()
    other = f"sqlite:///{tmp_path / 'other' / 'runwright.db'}"
    await restore(other, tmp_path / "copy")
    db = open_database(other)
    await db.open()
    assert await db.read(nodes.alive) == []
    states = await db.read(lambda tx: list(tx.execute(text("SELECT state FROM node")).scalars()))
    assert states == [NodeState.FENCED]
    await db.close()
