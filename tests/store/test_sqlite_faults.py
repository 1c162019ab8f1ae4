"""A SQLite file that is locked, read-only, full, damaged, gone or in the wrong place: said so, never made worse."""

import asyncio
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from app.errors import StartRefused, StoreUnavailable
from app.store import health, migrate, sqlite, sqlite_file
from app.store.db import Tx
from app.store.opening import open_database, require_safe_place
from app.store.sql import META
from app.store.sqlite import SqliteDatabase
from tests.store.conftest import Bench

PAGE = 4096


def put(tx: Tx, key: str, size: int = 1) -> None:
    tx.execute(META.insert().values(key=key, value="x" * size))


def keys(tx: Tx) -> list[str]:
    return sorted(tx.execute(META.select()).scalars())


def count_all(tx: Tx) -> int:
    return sum(
        tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
        for table in ("pipeline_run", "block_run", "node")
    )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqliteDatabase]:
    db = SqliteDatabase(url)
    try:
        await db.open()
        yield db
    finally:
        await db.close()


@contextmanager
def foreign_lock(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that writes and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


# Locked by another program


async def test_a_write_waits_for_a_lock_of_another_program(sqlite_url: str, tmp_path: Path) -> None:
    async with opened(sqlite_url) as db:
        with foreign_lock(tmp_path / "runwright.db") as other:
            write = asyncio.create_task(db.write(put, "a"))
            assert await db.read(keys) == []  # readers go on
            assert not write.done()
            other.execute("COMMIT")
            await write
        assert await db.read(keys) == ["a"]
        assert db.trouble is None


async def test_a_lock_that_lasts_is_an_unavailable_store_until_it_is_gone(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MS", 50)
    async with opened(sqlite_url) as db:
        with foreign_lock(tmp_path / "runwright.db"):
            with pytest.raises(StoreUnavailable, match="locked"):
                await db.write(put, "a")
            with pytest.raises(StoreUnavailable, match="locked"):
                await health.prove(db)
        await health.prove(db)
        await db.write(put, "b")
        assert "a" not in await db.read(keys)


# Read-only


@contextmanager
def as_nobody() -> Iterator[Path]:
    """Without the powers of root, in a folder that an ordinary user may look at."""
    folder = Path(tempfile.mkdtemp(prefix="rw-ro-"))
    folder.chmod(0o777)
    was = os.geteuid()
    if was == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(was)
        folder.chmod(0o777)
        shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_what_cannot_be_written_is_not_served(sqlite_template: Path, what: str) -> None:
    data = (sqlite_template / "runwright.db").read_bytes()
    with as_nobody() as folder:
        file = folder / "runwright.db"
        file.write_bytes(data)
        (folder if what == "folder" else file).chmod(0o555)
        with pytest.raises((StartRefused, StoreUnavailable)) as refused:
            async with opened(f"sqlite:///{file}"):
                pass
        assert str(folder) in refused.value.detail or "readonly" in refused.value.detail
        assert refused.value.hint
        assert file.read_bytes() == data


# Damaged


async def filled(url: str) -> None:
    """Make rows in many tables, and a few pages of each."""
    db = open_database(url)
    await db.open()
    bench = Bench(db, "")
    bench.me = await bench.node()
    for _ in range(20):
        await bench.running()
    await bench.db.write(put, "large", 5 * PAGE)
    await db.close()


@pytest.fixture
async def sound(sqlite_url: str, tmp_path: Path) -> Path:
    await filled(sqlite_url)
    return tmp_path / "runwright.db"


async def outcome(path: Path) -> str:
    """What a service makes of the file: refused, or served. Nothing else may come out."""
    try:
        await asyncio.to_thread(migrate.upgrade, f"sqlite:///{path}")
        async with opened(f"sqlite:///{path}") as db:
            await db.read(count_all)
    except (StartRefused, StoreUnavailable) as error:
        assert error.detail and error.hint
        return "refused"
    return "served"


async def test_a_page_that_is_overwritten_anywhere_is_found_and_the_file_left_alone(sound: Path) -> None:
    whole = sound.read_bytes()
    pages = len(whole) // PAGE
    assert pages > 30
    for page in range(pages):
        damaged = bytearray(whole)
        damaged[page * PAGE : (page + 1) * PAGE] = b"\xa5" * PAGE
        sound.write_bytes(damaged)
        assert await outcome(sound) == "refused", f"page {page}"
        assert sound.read_bytes() == damaged
    sound.write_bytes(whole)
    assert await outcome(sound) == "served"


async def test_single_bytes_that_flip_never_surprise_the_service(sound: Path) -> None:
    whole, chance = sound.read_bytes(), random.Random(4)
    seen = []
    for _ in range(100):
        damaged = bytearray(whole)
        at = chance.randrange(len(damaged))
        damaged[at] ^= chance.randrange(1, 256)
        sound.write_bytes(damaged)
        seen.append(await outcome(sound))
        if seen[-1] == "refused":
            assert sound.read_bytes() == damaged
    assert "refused" in seen  # a byte within a value is a value like any other: those are served


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
async def test_a_truncated_file_is_refused(sound: Path, share: float) -> None:
    whole = sound.read_bytes()
    cut = whole[: int(len(whole) * share)]
    sound.write_bytes(cut)
    with pytest.raises(StartRefused, match=r"damaged.*"):
        await asyncio.to_thread(migrate.upgrade, f"sqlite:///{sound}")
        async with opened(f"sqlite:///{sound}"):
            pass
    assert sound.read_bytes() == cut


@pytest.mark.parametrize("missing", [True, False])
async def test_the_log_of_a_file_that_is_gone_is_not_thrown_away(tmp_path: Path, missing: bool) -> None:
    file, wal = tmp_path / "runwright.db", tmp_path / "runwright.db-wal"
    wal.write_bytes(b"all that is left" * 100)
    if not missing:
        file.touch()
    with pytest.raises(StartRefused, match="empty or missing"):
        await asyncio.to_thread(migrate.upgrade, f"sqlite:///{file}")
    assert wal.read_bytes() == b"all that is left" * 100


async def test_damage_that_is_met_later_is_an_unavailable_store(sound: Path) -> None:
    tool = open_database(f"sqlite:///{sound}", exclusive=False)
    await tool.open()
    with sound.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xa5" * (sound.stat().st_size - PAGE))
    with pytest.raises(StoreUnavailable, match=r"malformed|disk image"):
        await tool.read(count_all)
    await tool.close()


# Full


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What the kernel does to a process that may not write more: as a full disk, but only for us."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_that_cannot_grow_refuses_writes_and_goes_on_by_itself(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with opened(sqlite_url) as db:
        await db.write(put, "before")
        limit = max(path.stat().st_size for path in tmp_path.glob("runwright.db*"))
        with files_no_larger_than(limit):
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await db.write(put, "large", 400 * PAGE)
            assert db.trouble is not None
            assert await db.read(keys) == ["before"]
        await health.prove(db)
        await db.write(put, "large", 400 * PAGE)
        assert db.trouble is None
        assert {"before", "large"} <= set(await db.read(keys))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_refuses_writes_and_room_is_all_it_takes(small_disk: Path, sqlite_url: str) -> None:
    path = small_disk / "runwright.db"
    shutil.copy(sqlite_url.removeprefix("sqlite:///"), path)
    async with opened(f"sqlite:///{path}") as db:
        await db.write(put, "before")
        with (
            (small_disk / "other").open("wb", buffering=0) as other,
            pytest.raises(OSError, match="No space"),
        ):
            while True:
                other.write(b"x" * PAGE)
        with pytest.raises(StoreUnavailable, match=r"full|disk"):
            await db.write(put, "refused", 10 * PAGE)
        with pytest.raises(StoreUnavailable):
            await health.prove(db)
        assert await db.read(keys) == ["before"]
        (small_disk / "other").unlink()
        await db.write(put, "again", 10 * PAGE)
        assert "again" in await db.read(keys)


# Gone, or in the wrong place


async def test_a_folder_that_is_removed_under_the_service_is_noticed(sqlite_url: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(tmp_path / "runwright.db", home)
    async with opened(f"sqlite:///{home / 'runwright.db'}") as db:
        await db.write(put, "a")
        home.rename(tmp_path / "elsewhere")
        for use in (db.write(put, "b"), db.read(keys), health.prove(db)):
            with pytest.raises(StoreUnavailable, match="removed or replaced"):
                await use
        (tmp_path / "elsewhere").rename(home)
        await health.prove(db)
        await db.write(put, "c")
        assert {"a", "c"} <= set(await db.read(keys))


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/share rw,relatime shared:9 - nfs4 server:/export rw
31 30 0:41 / /srv/share/local rw shared:9 - xfs /dev/sdb rw
32 22 0:42 / /mnt/my\\040disk rw shared:9 - fuse.sshfs me@host:/ rw
33 22 0:43 / /data rw shared:9 - ext4 /dev/sdc rw
34 22 0:44 / /data rw shared:9 - cifs //host/data rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/runwright.db", "ext4"),
        ("/srv/share/p/runwright.db", "nfs4"),
        ("/srv/sharedrive/runwright.db", "ext4"),
        ("/srv/share/local/runwright.db", "xfs"),
        ("/mnt/my disk/runwright.db", "fuse.sshfs"),
        ("/data/runwright.db", "cifs"),
    ],
)
def test_a_file_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(sqlite_file, "MOUNTS", mounts)
    assert sqlite_file.file_system(Path(path)) == kind
    require_safe_place(f"sqlite:///{path}", network_allowed=True)
    require_safe_place("postgresql://db/runwright", network_allowed=False)
    if kind in ("ext4", "xfs"):
        require_safe_place(f"sqlite:///{path}", network_allowed=False)
        return
    with pytest.raises(StartRefused, match=kind) as refused:
        require_safe_place(f"sqlite:///{path}", network_allowed=False)
    assert "RUNWRIGHT_SQLITE_ON_NETWORK" in refused.value.hint


def test_this_machine_tells_its_file_system(tmp_path: Path) -> None:
    told = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout.strip()
    found = sqlite_file.file_system(tmp_path)
    assert found is not None
    assert told.startswith(found.rstrip("4")) or found in told or told == "UNKNOWN"


async def test_an_upgrade_that_fails_half_way_leaves_the_file_as_it_was(
    blank_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = migrate._run_alembic

    def dies(tx: Tx) -> None:
        whole(tx)
        raise RuntimeError("killed")

    monkeypatch.setattr(migrate, "_run_alembic", dies)
    with pytest.raises(RuntimeError, match="killed"):
        await asyncio.to_thread(migrate.upgrade, blank_sqlite_url)
    with closing(sqlite3.connect(tmp_path / "runwright.db")) as raw:
        assert raw.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    monkeypatch.undo()
    assert await asyncio.to_thread(migrate.upgrade, blank_sqlite_url) is None
    assert await asyncio.to_thread(migrate.upgrade, blank_sqlite_url) == migrate.HEAD


async def test_a_file_that_is_being_served_is_not_upgraded_under_the_service(sqlite_url: str) -> None:
    async with opened(sqlite_url) as db:
        assert await asyncio.to_thread(migrate.upgrade, sqlite_url) == migrate.HEAD  # nothing to do
        await db.write(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '0001'")))
        with pytest.raises(StartRefused, match="Another service"):
            await asyncio.to_thread(migrate.upgrade, sqlite_url)
