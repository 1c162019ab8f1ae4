"""A COMMIT whose answer was lost is resolved, not guessed; connections that died are replaced unseen."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, text

from app.errors import OutcomeUnknown, StoreUnavailable
from app.store import apart, commits, connecting
from app.store.connecting import connect_raw, keep_alive, open_connection
from app.store.db import Tx, outside
from app.store.ids import Ids
from app.store.opening import open_database
from app.store.pooler import pooler_suspected
from app.store.postgres import POOL_SIZE, PostgresDatabase
from app.store.sql import META
from tests.soak.proxy import Proxy, wire


def put(tx: Tx, key: str) -> str:
    tx.execute(META.insert().values(key=key, value="x"))
    return f"put {key}"


def keys(tx: Tx) -> list[str]:
    return sorted(tx.execute(META.select()).scalars())


def one(tx: Connection) -> int:
    return int(tx.execute(text("SELECT 1")).scalar_one())


@asynccontextmanager
async def through_a_wire(url: str) -> AsyncIterator[tuple[Proxy, PostgresDatabase]]:
    async with wire(url) as proxy:
        db = PostgresDatabase(proxy.url)
        await db.open()
        yield proxy, db
        await db.close()


async def execute(url: str, *statements: str) -> None:
    async with plain(url) as connection:
        for statement in statements:
            await connection.execute(statement)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Any]:
    connection = await connect_raw(url)
    yield connection
    await connection.close()


@asynccontextmanager
async def gate(url: str) -> AsyncIterator[None]:
    """While it is open, whoever calls `pass_gate` waits at it, in the middle of a transaction."""
    async with plain(url) as connection:
        await connection.execute("SELECT pg_advisory_lock(7)")
        yield
        await connection.execute("SELECT pg_advisory_unlock(7)")


def pass_gate(tx: Tx) -> None:
    tx.execute(text("SELECT pg_advisory_xact_lock_shared(7)"))


async def at_the_gate(url: str, count: int) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
    )
    async with plain(url) as connection, asyncio.timeout(10):
        while await connection.fetchval(query) != count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("refused", [0, 1, 3])
async def test_a_write_whose_answer_was_lost_is_done(postgres_url: str, refused: int) -> None:
    """However often the new connection fails before it can be asked."""
    async with through_a_wire(postgres_url) as (proxy, db):
        proxy.refuse, proxy.swallow = refused, b"COMMIT"
        assert await db.write(put, "a") == "put a"
        assert proxy.swallowed.is_set()
        assert await db.read(keys) == ["a"]


@pytest.mark.usefixtures("told_pid")
async def test_a_commit_that_never_arrived_was_not_done_and_stays_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server still has the transaction open, as after a cable was pulled: it is ended, so the answer is final."""
    monkeypatch.setitem(connecting.SETTINGS, "idle_in_transaction_session_timeout", "0")
    async with through_a_wire(postgres_url) as (proxy, db):
        proxy.drop = b"COMMIT"
        with pytest.raises(StoreUnavailable) as told:
            await db.write(put, "a")
        assert proxy.dropped.is_set()
        assert not isinstance(told.value, OutcomeUnknown)
        assert await db.read(keys) == []
        assert await db.write(put, "a") == "put a", "no lock of it is left"


async def test_nobody_is_told_failed_while_nobody_can_know(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "ASK_S", 0.3)
    async with through_a_wire(postgres_url) as (proxy, db):
        proxy.refuse, proxy.swallow = 1000, b"COMMIT"
        with pytest.raises(OutcomeUnknown) as told:
            await db.write(put, "a")
        assert "Idempotency-Key" in told.value.hint
        proxy.refuse = 0
        assert await db.read(keys) == ["a"]


async def test_ids_whose_answer_was_lost_are_not_given_out_twice(postgres_url: str) -> None:
    async with through_a_wire(postgres_url) as (proxy, db):
        one, two = Ids(db, "thing", 10), Ids(db, "thing", 10)
        proxy.swallow = b"COMMIT"
        given = [*await one.take(3), *await two.take(3), *await one.take(20)]
        assert proxy.swallowed.is_set()
        assert len(given) == len(set(given))


async def test_a_statement_that_failed_unseen_does_not_pass_for_a_commit(postgres_url: str) -> None:
    db = PostgresDatabase(postgres_url)
    await db.open()

    def careless(tx: Tx) -> None:
        put(tx, "a")
        try:
            put(tx, "a")
        except Exception:
            return

    with pytest.raises(StoreUnavailable):
        await db.write(careless)
    assert await db.read(keys) == []
    await db.close()


async def test_a_restart_of_the_server_between_two_calls_costs_no_caller_anything(postgres_url: str) -> None:
    async with through_a_wire(postgres_url) as (proxy, db):
        await asyncio.gather(*(db.read(one) for _ in range(8)))  # every connection of the pool has been used
        proxy.cut()
        assert await asyncio.gather(*(db.read(one) for _ in range(8))) == [1] * 8
        proxy.cut()
        assert await db.write(put, "a") == "put a"


async def test_a_read_sees_one_snapshot(postgres_url: str) -> None:
    db = PostgresDatabase(postgres_url)
    await db.open()
    seen: list[list[str]] = []

    def twice(tx: Tx) -> None:
        seen.append(keys(tx))
        pass_gate(tx)
        seen.append(keys(tx))

    async with gate(postgres_url):
        reading = asyncio.create_task(db.read(twice))
        await at_the_gate(postgres_url, 1)
        await db.write(put, "a")
    await reading
    assert seen == [[], []]
    assert await db.read(keys) == ["a"]
    await db.close()


async def test_a_standby_is_left_for_the_primary(postgres_url: str) -> None:
    """After a failover every connection leads to a server that refuses writes: none of them is kept."""
    name = postgres_url.partition("@/")[2].partition("?")[0]
    db = open_database(postgres_url)
    await db.open()
    await execute(postgres_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await execute(
        postgres_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with pytest.raises(StoreUnavailable):
        await db.write(put, "a")
    assert await db.read(keys) == []
    await execute(
        postgres_url, "SET default_transaction_read_only = off", f'ALTER DATABASE "{name}" RESET ALL'
    )
    assert await db.write(put, "a") == "put a"
    await db.close()


@pytest.mark.parametrize("code", ["53100", "53200", "57P03"])
async def test_a_server_that_is_unwell_changes_nothing_and_serves_again_when_it_is_well(
    postgres_url: str, code: str
) -> None:
    """53100 is a full disk: raised by the real server, by a rule of ours, since a full disk needs root."""
    await execute(
        postgres_url,
        "CREATE FUNCTION unwell() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'unwell' USING errcode = '{code}'; END $$;"
        " CREATE TRIGGER unwell BEFORE INSERT ON meta EXECUTE FUNCTION unwell()",
    )
    db = open_database(postgres_url)
    await db.open()
    with pytest.raises(StoreUnavailable):
        await db.write(put, "a")
    await execute(postgres_url, "DROP TRIGGER unwell ON meta")
    assert await db.write(put, "a") == "put a"
    await db.close()


async def test_however_many_callers_there_are_the_engine_has_its_connections(postgres_url: str) -> None:
    db = PostgresDatabase(postgres_url)
    await db.open()

    async def slow_call() -> None:
        outside.set(True)  # this task's own
        await db.read(pass_gate)

    async with gate(postgres_url):
        calls = [asyncio.create_task(slow_call()) for _ in range(200)]
        await at_the_gate(postgres_url, POOL_SIZE)
        for n in range(20):
            assert await db.write(put, f"k{n}") == f"put k{n}"
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} <= {type(None), StoreUnavailable}
    await db.close()


async def test_the_server_lets_go_of_whoever_is_silently_gone(postgres_url: str) -> None:
    connection = await open_connection(postgres_url)
    shown = {
        name: await connection.fetchval(f"SHOW {name}")
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone")
    }
    await connection.close()
    assert shown == {
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "5s",
        "TimeZone": "UTC",
    }


@pytest.mark.parametrize(
    ("error", "open_question"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.QueryCanceledError(), True),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.SerializationError(), False),
    ],
)
def test_only_a_refusal_of_the_server_settles_a_commit(error: Exception, open_question: bool) -> None:
    assert commits.is_open_question(error) is open_question


async def test_of_several_hosts_the_one_that_takes_writes_is_found(postgres_url: str) -> None:
    base, _, folder = postgres_url.partition("?host=")
    url = f"{base}?host=/nowhere,{folder}&port=5432,5432&target_session_attrs=read-write"
    db = open_database(url)
    await db.open()
    assert await db.write(put, "a") == "put a"
    await db.close()
    connection = await connect_raw(url)
    assert await connection.fetchval("SHOW transaction_read_only") == "off"
    await connection.close()


async def test_the_kernel_looks_after_a_peer_behind_a_network() -> None:
    server = await asyncio.start_server(lambda _, there: there.close(), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    keep_alive(writer.transport)
    sock: socket.socket = writer.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_a_direct_connection_is_no_pooler(postgres_url: str) -> None:
    connection = await connect_raw(postgres_url)
    assert not await pooler_suspected(postgres_url, connection)
    await connection.close()


async def test_a_tool_whose_server_goes_away_at_its_commit_is_told_so(postgres_url: str) -> None:
    async with wire(postgres_url) as proxy:
        proxy.swallow = b"COMMIT"
        with pytest.raises(StoreUnavailable, match="Postgres does not answer"):
            await asyncio.to_thread(apart.run, proxy.url, partial(put, key="from a tool"), write=True)
        assert proxy.swallowed.is_set()
