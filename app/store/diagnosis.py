"""What `runwright doctor` asks a database: whether it can keep what this program promises."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection, func, select

from app import clock
from app.models.states import RUN_TERMINAL, NodeState
from app.store import apart, migrate, sqlite_file
from app.store.connecting import FAILURES, connect_raw
from app.store.pooler import pooler_suspected
from app.store.postgres import CONNECTIONS
from app.store.sql import NODE, RUN

_VERSION_NEEDED: Final = 130000
#: A clock that is further off than this is worth a word; the service goes by the database's.
_OFFSET_S: Final = 1.0
_LITTLE_ROOM: Final = 256 * 1024 * 1024
_CHANNEL: Final = "runwright_doctor"

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. A warning is no reason not to start."""

    check: str
    status: Status
    detail: str


def of_sqlite(path: Path, *, network_allowed: bool) -> list[Finding]:
    """Where the file lies, how much room is there, whether it is sound. Changes nothing."""
    found = [_place(path, network_allowed), _room(path)]
    if path.is_file():
        fault = sqlite_file.quick_check(path)
        found.append(Finding("integrity", "failed", fault) if fault else Finding("integrity", "ok", "sound"))
        if fault is None:
            found.append(apart.run(f"sqlite:///{path}", _journal_mode))
    return found


def _place(path: Path, network_allowed: bool) -> Finding:
    kind = sqlite_file.file_system(path)
    if kind not in sqlite_file.NETWORK:
        return Finding("file system", "ok", kind or "unknown")
    status: Status = "warning" if network_allowed else "failed"
    return Finding(
        "file system", status, f"{kind} is a network file system: SQLite's locks do not hold there"
    )


def _room(path: Path) -> Finding:
    folder = next(parent for parent in path.parents if parent.exists())
    free = shutil.disk_usage(folder).free
    status: Status = "ok" if free > _LITTLE_ROOM else "warning"
    return Finding("free space", status, f"{free / 2**20:,.0f} MiB in {folder}")


def _journal_mode(tx: Connection) -> Finding:
    mode = str(tx.exec_driver_sql("PRAGMA journal_mode").scalar())
    if mode == "wal":
        return Finding("journal mode", "ok", mode)
    return Finding("journal mode", "ok", f"{mode}, wal from the next start on")


def nodes_and_leases(tx: Connection) -> Finding:
    """Who serves the database, who is late, what is under way."""
    if not migrate.check(tx):
        return Finding("nodes", "ok", "none yet, or of an older schema")
    alive = NODE.c.state.in_([NodeState.LIVE, NodeState.DRAINING])
    count = _count(tx, select(func.count()).where(alive))
    live = _count(tx, select(func.count()).where(RUN.c.status.not_in(list(RUN_TERMINAL))))
    words = f"alive: {count}, live runs: {live}"
    if tx.dialect.name == "sqlite":
        return Finding("nodes", "ok", words)
    late = _count(tx, select(func.count()).where(alive, NODE.c.lease_until < func.clock_timestamp()))
    if not late:
        return Finding("nodes", "ok", words)
    return Finding("nodes", "warning", f"{words}, lease over: {late}; another node takes their runs over")


def _count(tx: Connection, statement: Any) -> int:
    return int(tx.execute(statement).scalar_one())


def of_postgres(url: str) -> list[Finding]:
    """Version, clock, durability, room for connections, notifications. Raises StoreUnavailable."""
    return asyncio.run(_of_postgres(url))


async def _of_postgres(url: str) -> list[Finding]:
    connection = await connect_raw(url)
    try:
        found = []
        for look in (_version, _clock, _durability, _connections, _notifications):
            found += await _carefully(look, connection)
        return [*found, await _pooler(url)]
    finally:
        with suppress(*FAILURES):
            await connection.close(timeout=2)


async def _carefully(look: Callable[[Any], Awaitable[Iterable[Finding]]], connection: Any) -> list[Finding]:
    """A look that the server refuses is a finding, not the end of the others."""
    try:
        return list(await look(connection))
    except FAILURES as error:
        return [Finding(look.__name__.strip("_"), "failed", str(error) or type(error).__name__)]


async def _version(connection: Any) -> list[Finding]:
    number = int(await connection.fetchval("SHOW server_version_num"))
    told = str(await connection.fetchval("SHOW server_version"))
    if number < _VERSION_NEEDED:
        return [Finding("server", "failed", f"Postgres {told} is too old; 13 is needed")]
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        return [Finding("server", "failed", f"Postgres {told} is a standby: it takes no writes")]
    return [Finding("server", "ok", f"Postgres {told}")]


async def _clock(connection: Any) -> list[Finding]:
    asked = clock.host_now()
    theirs = await connection.fetchval("SELECT clock_timestamp()")
    answered = clock.host_now()
    offset_s = (theirs - (asked + (answered - asked) / 2)).total_seconds()
    return [judge_clock(offset_s)]


def judge_clock(offset_s: float) -> Finding:
    """What a difference of the clocks means.

    >>> judge_clock(0.02).status, judge_clock(-90.0).status
    ('ok', 'warning')
    """
    if abs(offset_s) < _OFFSET_S:
        return Finding("clock", "ok", f"the database's is {offset_s:+.3f} s from this host's")
    words = f"the database's is {offset_s:+.1f} s from this host's; triggers go by the database's"
    return Finding("clock", "warning", words)


_SETTINGS: Final = ("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names")


async def _durability(connection: Any) -> list[Finding]:
    return [judge_durability({name: await connection.fetchval(f"SHOW {name}") for name in _SETTINGS})]


def judge_durability(settings: dict[str, str]) -> Finding:
    """Whether a commit that was answered can be lost.

    >>> judge_durability({"fsync": "off", "full_page_writes": "on", "synchronous_commit": "on"}).detail
    'fsync=off: a crash of the server loses commits that were answered, and with them runs that were started'
    """
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if settings[name] == "off"]
    if off:
        words = ", ".join(f"{name}=off" for name in off)
        consequence = (
            "a crash of the server loses commits that were answered, and with them runs that were started"
        )
        return Finding("durability", "failed", f"{words}: {consequence}")
    if settings["synchronous_commit"] == "local" and settings.get("synchronous_standby_names"):
        return Finding(
            "durability", "warning", "synchronous_commit=local: a failover may lose the last commits"
        )
    return Finding("durability", "ok", f"fsync=on, synchronous_commit={settings['synchronous_commit']}")


async def _connections(connection: Any) -> list[Finding]:
    row = await connection.fetchrow(
        "SELECT current_setting('max_connections')::int"
        "  - current_setting('superuser_reserved_connections')::int AS most,"
        " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        "  AND application_name <> 'runwright') AS others,"
        " (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'runwright' AND datname = current_database()"
        "  AND pid <> pg_backend_pid()) AS ours"
    )
    return [judge_connections(row["most"], row["others"], row["ours"])]


def judge_connections(most: int, others: int, ours: int) -> Finding:
    """How many nodes fit beside the others who use the server.

    >>> judge_connections(97, 90, 0).status, judge_connections(997, 20, CONNECTIONS).status
    ('failed', 'ok')
    """
    fit = max(0, most - others) // CONNECTIONS
    words = (
        f"{most} at most, {others} of others, {ours} of ours: {fit} nodes fit, {CONNECTIONS} connections each"
    )
    running = -(-ours // CONNECTIONS)
    status: Status = "failed" if fit == 0 else "warning" if fit <= running else "ok"
    return Finding("connections", status, words)


async def _notifications(connection: Any) -> list[Finding]:
    """Whether a NOTIFY reaches who listens: behind a transaction pooler it does not."""
    heard = asyncio.Event()
    await connection.add_listener(_CHANNEL, lambda *_: heard.set())
    await connection.execute(f"NOTIFY {_CHANNEL}")
    try:
        async with asyncio.timeout(3):
            await heard.wait()
    except TimeoutError:
        words = "LISTEN hears nothing; runs still start, within a second (the poll)"
        return [Finding("notifications", "warning", words)]
    return [Finding("notifications", "ok", "LISTEN and NOTIFY work")]


async def _pooler(url: str) -> Finding:
    connection = await connect_raw(url)
    try:
        if await pooler_suspected(url, connection):
            words = (
                "a pooler gives every transaction another session; use the server's own port, or session mode"
            )
            return Finding("pooler", "failed", words)
    finally:
        connection.terminate()
    return Finding("pooler", "ok", "none that would change sessions")
