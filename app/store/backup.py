"""A copy of the database in one file, taken while the service runs, and the way back.

SQLite: a database file, by the online backup of the library. Postgres: a custom-format archive by `pg_dump`, of
the tables of this program only.
"""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE
from typing import Final

from sqlalchemy import Connection, func, make_url, select, update

from app.errors import Conflict, InvalidInput, NotFound, RunwrightError, StartRefused
from app.models.columns import to_us
from app.models.states import RUN_TERMINAL, NodeState
from app.models.tables import metadata
from app.settings import environment
from app.store import apart, disk, migrate, nodes
from app.store.opening import sqlite_path
from app.store.postgres_lock import holding
from app.store.sql import ID_BLOCK, META, NODE, RUN, insert
from app.store.sqlite_file import quick_check, take_lock

#: Ids that are left out after a restore: those given out since the copy was taken may be known to somebody.
SKIPPED_IDS: Final = 100_000
_MAGIC: Final = b"SQLite format 3\0"
_ARCHIVE: Final = b"PGDMP"
#: What is ours in a Postgres database.
_OURS: Final = (*sorted(metadata.tables), "alembic_version")
_SEQUENCE: Final = "event_seq"
_DROP: Final = f"DROP TABLE IF EXISTS {', '.join(_OURS)}; DROP SEQUENCE IF EXISTS {_SEQUENCE};"
_PLAIN: Final = ("--no-owner", "--no-privileges")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found in the copy: its schema, nodes that are fenced now, runs that were under way."""

    schema: str
    fenced: int
    live_runs: int
    #: where the file that was there is now
    kept: Path | None = None


def backup(url: str, target: Path, *, overwrite: bool = False) -> str:
    """Write a copy to a file; the version of its schema. A file that is there stays as it is if this fails.

    Raises Conflict when the file is there, NotFound without a database, RunwrightError when a tool is missing.
    """
    if target.exists() and not overwrite:
        raise Conflict(f"{target} is there already.", hint="Give another name, or --force to replace it.")
    path = sqlite_path(url)
    if path is not None and not path.is_file():
        raise NotFound(f"There is no database {path}.", hint="The first start makes it.")
    version = apart.run(url, migrate.current)
    if version is None:
        raise NotFound("The database is empty: there is nothing to back up.")
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # variables are in it
        if path is not None:
            _copy(path, partial)
        else:
            _dump(url, partial)
        disk.sync(partial)
        partial.replace(target)
        disk.sync(target.parent)
    except OSError as error:
        raise RunwrightError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return version


def restore(url: str, source: Path, *, force: bool = False, now: datetime) -> Restored:
    """Put a copy in the place of the database, and see to it that nothing believes that it still owns a run.

    Raises StartRefused while a service lives on it or the copy is of a newer program, Conflict when there is a
    database and not `force`, InvalidInput for a file that is no copy of such a database.
    """
    path = sqlite_path(url)
    head = _head(source)
    if not head.startswith(_MAGIC if path is not None else _ARCHIVE):
        raise InvalidInput(f"{source} is no backup of a {'SQLite' if path else 'Postgres'} database.")
    if path is not None:
        with closing(take_lock(path)):
            return _restore_file(path, source, force=force, now=now)
    _require_known_archive(source)
    with holding(url, migrate.LOCK):  # no service starts meanwhile
        floor = apart.run(url, lambda tx: _look_at_target(tx, force=force))
        _replace(url, source, drop=force)
        return apart.run(url, lambda tx: settle(tx, floor, now=now), write=True)


def settle(tx: Connection, floor: Mapping[str, int], *, now: datetime) -> Restored:
    """Make a copy safe to serve: its nodes are fenced, and no id from after the copy is given out again.

    It is brought to this program's schema on the way. `floor`: the next id of each resource in the database that
    was replaced, as far as it is known. Runs that were under way are then of the dead: the next service takes them
    over at a higher epoch.
    """
    if migrate.current(tx) is None:
        raise InvalidInput("The backup holds no database of this program.")
    version = migrate.upgrade_here(tx) or migrate.HEAD
    fenced = nodes.fence(tx, [node.id for node in nodes.alive(tx)], now=now)
    for name, next_id in _next_ids(tx).items():
        beyond = max(next_id, floor.get(name, 1)) + SKIPPED_IDS
        tx.execute(update(ID_BLOCK).where(ID_BLOCK.c.name == name).values(next_id=beyond))
    told = insert(tx, META).values(key="restored_at", value=now.astimezone(UTC).isoformat())
    tx.execute(told.on_conflict_do_update(index_elements=[META.c.key], set_={"value": told.excluded.value}))
    live = select(RUN.c.id).where(RUN.c.status.not_in(list(RUN_TERMINAL)))
    return Restored(version, len(fenced), len(tx.execute(live).all()))


def _next_ids(tx: Connection) -> dict[str, int]:
    return {row.name: row.next_id for row in tx.execute(select(ID_BLOCK))}


def _look_at_target(tx: Connection, *, force: bool) -> dict[str, int]:
    """The next ids of the database that will be replaced. Raises when it must not be."""
    version = migrate.current(tx)
    if version is None:
        return {}
    if version > migrate.HEAD:
        raise StartRefused(
            f"The database has schema {version}, this program knows {migrate.HEAD}.",
            hint="Restore into an empty database: what this program does not know would stay, and be in the way later.",
        )
    alive = (
        NODE.c.state.in_([NodeState.LIVE, NodeState.DRAINING]),
        NODE.c.lease_until > func.clock_timestamp(),
    )
    if pids := list(tx.execute(select(NODE.c.pid).where(*alive).order_by(NODE.c.pid)).scalars()):
        raise StartRefused(
            f"{len(pids)} services live on this database (pid {', '.join(map(str, pids))}).",
            hint="Stop them first. One that was killed counts until its lease ends (RUNWRIGHT_LEASE_S).",
        )
    if not force:
        raise _not_empty("this Postgres database")
    return _next_ids(tx)


def _not_empty(what: str) -> Conflict:
    return Conflict(
        f"There is data in {what}.", hint="--force puts the backup in its place. Make a backup first."
    )


def _restore_file(path: Path, source: Path, *, force: bool, now: datetime) -> Restored:
    """The caller holds the lock of `path`."""
    floor: dict[str, int] = {}
    there = path.is_file() and path.stat().st_size > 0
    if there:
        if not force:
            raise _not_empty(str(path))
        if quick_check(path) is None:  # a damaged one is the reason, most likely
            floor = apart.run(f"sqlite:///{path}", lambda tx: _next_ids(tx) if migrate.current(tx) else {})
    partial = path.with_name(path.name + ".restoring")
    try:
        partial.unlink(missing_ok=True)
        _copy(source, partial)
        restored = apart.run(f"sqlite:///{partial}", lambda tx: settle(tx, floor, now=now), write=True)
        disk.sync(partial)
        kept = _set_aside(path, now) if there else None
        partial.replace(path)
        disk.sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
    return Restored(restored.schema, restored.fenced, restored.live_runs, kept)


def _set_aside(path: Path, now: datetime) -> Path:
    """Rename a database with all that belongs to it. The file goes first: a log without it is never thrown away."""
    kept = path.with_name(f"{path.name}.replaced-{to_us(now)}")
    path.rename(kept)
    for suffix in ("-wal", "-shm"):
        if (beside := path.with_name(path.name + suffix)).exists():
            beside.rename(kept.with_name(kept.name + suffix))
    return kept


def _copy(source: Path, target: Path) -> None:
    """A consistent copy in one file, complete and sound, also while a service writes."""
    try:
        with closing(sqlite3.connect(source, timeout=30)) as live, closing(sqlite3.connect(target)) as copy:
            live.execute("PRAGMA query_only=ON")
            live.backup(copy)  # in one step: a snapshot, which writers do not wait for
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise RunwrightError(f"{source} cannot be copied to {target}: {error}.") from error
    if (fault := quick_check(target)) is not None:
        raise RunwrightError(
            f"The copy of {source} is damaged: {fault}.",
            hint="The original is damaged too: runwright db check",
        )


def _head(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise NotFound(f"{source} cannot be read: {error.strerror or error}.") from error


def _dump(url: str, target: Path) -> None:
    to_server, env = _server(url)
    tables = [f"--table={name}" for name in (*_OURS, _SEQUENCE)]
    _tool("pg_dump", *to_server, *_PLAIN, "--format=custom", *tables, f"--file={target}", env=env)


def _require_known_archive(source: Path) -> None:
    """Look at the schema's version in an archive before anything is changed."""
    told = _tool("pg_restore", "--data-only", "--table=alembic_version", "--file=-", str(source))
    versions = [line for line in told.splitlines() if line.isdigit()]
    if not versions:
        raise InvalidInput("The backup holds no database of this program.")
    migrate.require_known(versions[0])


def _replace(url: str, source: Path, *, drop: bool) -> None:
    """Put an archive into a database, in one transaction; with `drop` in the place of our tables.

    In the place of all, of those as well that the archive's schema had not yet: its upgrade will make them.
    """
    to_server, env = _server(url)
    psql = [_program("psql"), *to_server, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    pg_restore = [_program("pg_restore"), *_PLAIN, "--file=-", str(source)]
    begin = f"BEGIN; {_DROP if drop else ''}\n"
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(psql, 0, stdin=PIPE, stdout=subprocess.DEVNULL, stderr=told, env=env) as writing,
    ):
        assert writing.stdin is not None
        with suppress(BrokenPipeError):  # psql has ended, and told why
            writing.stdin.write(begin.encode())
            read = subprocess.run(pg_restore, stdout=writing.stdin, stderr=PIPE)
            if read.returncode == 0:
                writing.stdin.write(b"COMMIT;\n")  # without it nothing has happened
        writing.stdin.close()
        code = writing.wait()
        told.seek(0)
        _require_success("psql", code, told.read())
    _require_success("pg_restore", read.returncode, read.stderr)


def _server(url: str) -> tuple[list[str], dict[str, str]]:
    """How a client tool is told of a database: its arguments, and the environment, for the password."""
    parts = make_url(url).set(drivername="postgresql")  # whoever lists processes sees arguments
    secret = {} if parts.password is None else {"PGPASSWORD": str(parts.password)}
    address = parts._replace(password=None).render_as_string(hide_password=False)
    return [f"--dbname={address}", "--no-password"], {**environment(), **secret}


def _tool(tool: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """What a tool printed. Raises RunwrightError with its own words when it fails or is not there."""
    done = subprocess.run([_program(tool), *arguments], capture_output=True, env=env)
    _require_success(tool, done.returncode, done.stderr)
    return done.stdout.decode(errors="replace")


def _program(tool: str) -> str:
    if (program := shutil.which(tool)) is not None:
        return program
    raise RunwrightError(
        f"{tool} is not on this machine.",
        hint="Install the Postgres client (postgresql-client) of the server's version or newer, or use the "
        "backups of whoever runs the server.",
    )


def _require_success(tool: str, code: int, told: bytes) -> None:
    if code == 0:
        return
    words = told.decode(errors="replace").strip()
    old = "version mismatch" in words or "unsupported version" in words
    hint = "Its version must not be older than the server's or the archive's." if old else ""
    raise RunwrightError(f"{tool} failed: {words[-500:]}", hint=hint)
