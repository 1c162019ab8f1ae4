"""Postgres through SQLAlchemy's asyncpg dialect: every store function is one short transaction.

Deadlocks and serialization failures are tried again here, since a store function is a whole transaction and
has no effect outside it. When the connection is lost at COMMIT, the server is asked what became of it
(`commits.py`); lost before that, nothing was changed.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import clock
from app.errors import StoreUnavailable
from app.store import commits
from app.store.connecting import (
    FAILURES,
    READ_ONLY,
    away,
    connect_raw,
    engine_on,
    first_connection,
    sqlstate,
    tells_of_server,
)
from app.store.db import P, T, bound, outside
from app.store.pooler import refuse_pooler

log = logging.getLogger(__name__)

#: Connections of the engine, and as many of all callers from outside together.
POOL_SIZE = 8
#: What a node has at most: the two pools, its journal, its lease, its listener.
CONNECTIONS = 2 * POOL_SIZE + 3
#: Seconds that somebody waits for one of them.
POOL_TIMEOUT_S = 2.0
TRIES = 5
#: serialization_failure, deadlock_detected
_RETRY = frozenset({"40001", "40P01"})
#: A BEGIN takes no time: no answer within so many seconds, and the connection is dead.
BEGIN_S = 3.0
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"  # one snapshot, however many statements


class PostgresDatabase:
    """The production database."""

    dialect = "postgresql"
    shared = True

    def __init__(self, url: str) -> None:
        self.url = url
        self._own: AsyncEngine | None = None
        self._outside: AsyncEngine | None = None

    async def open(self) -> None:
        """Make the pools and prove that the database answers."""
        self._own, self._outside = self._pool(), self._pool()
        async with first_connection(self._own) as connection:
            assert connection.sync_connection is not None
            await refuse_pooler(self.url, connection.sync_connection.connection.driver_connection)

    def _pool(self) -> AsyncEngine:
        return engine_on(
            self.url,
            isolation_level="AUTOCOMMIT",  # BEGIN and COMMIT are ours: see `_transaction`
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=False,  # a dead connection is found at BEGIN, where nothing has happened yet
        )

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn` in a transaction, again on a deadlock. Raises StoreUnavailable, OutcomeUnknown."""
        call = bound(fn, args, kwargs)
        tries_left = TRIES
        while tries_left:
            tries_left -= 1
            try:
                return await self._transaction(call, readonly=False)
            except DBAPIError as error:
                if sqlstate(error) not in (*_RETRY, READ_ONLY):
                    raise
                if not tries_left:
                    raise away(error) from error
                if sqlstate(error) == READ_ONLY:
                    tries_left = min(tries_left, 1)  # if the next server is none either, the callers decide
                    await self._reconnect()
                await asyncio.sleep(random.uniform(0, 0.05))  # apart from the transaction it met
        raise AssertionError("unreachable")

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` in a read-only transaction on one snapshot. Raises StoreUnavailable."""
        return await self._transaction(bound(fn, args, kwargs), readonly=True)

    async def _transaction(self, call: Callable[[Connection], T], *, readonly: bool) -> T:
        pool = self._outside if outside.get() else self._own
        if pool is None:
            raise StoreUnavailable("the database is not open")
        try:
            async with _begun(pool, readonly=readonly) as begun:
                result = await begun.connection.run_sync(call)
                await self._commit(begun)
                return result
        except PoolTimeout as error:
            log.warning("no database connection was free for %.0f s", POOL_TIMEOUT_S)
            raise StoreUnavailable("every database connection is taken", hint="repeat it later") from error
        except (DBAPIError, *FAILURES) as error:
            if not readonly and isinstance(error, DBAPIError) and sqlstate(error) == READ_ONLY:
                raise
            if tells_of_server(error):
                raise away(error) from error
            raise

    async def _commit(self, begun: "_Begun") -> None:
        """End the transaction; returns only when it is on disk."""
        begun.ending = True
        try:
            said = await begun.raw.execute("COMMIT")
        except FAILURES as error:
            if begun.number is None:
                return  # it has only read, and it has read
            if not commits.is_open_question(error):
                raise
            if not await commits.was_committed(partial(connect_raw, self.url), begun.number):
                raise
            begun.broken = True
            return
        if said != "COMMIT":  # a statement had failed, and the store function went on
            raise StoreUnavailable("the database has rolled a transaction back")
        begun.ended = True

    async def _reconnect(self) -> None:
        """Let go of every connection: they lead to a server that was the primary."""
        for pool in (self._own, self._outside):
            if pool is not None:
                await pool.dispose()

    async def close(self) -> None:
        """Close the pools."""
        await self._reconnect()
        self._own = self._outside = None


@dataclass(slots=True)
class _Begun:
    """A transaction on a connection of a pool."""

    connection: AsyncConnection
    raw: Any
    #: what the server calls it; None for one that only reads
    number: str | None = None
    #: its COMMIT is on its way, was answered; its connection is of no use any more
    ending: bool = False
    ended: bool = False
    broken: bool = False


@asynccontextmanager
async def _begun(pool: AsyncEngine, *, readonly: bool) -> AsyncIterator[_Begun]:
    begun = await _begin(pool, readonly=readonly)
    try:
        yield begun
    except DBAPIError as error:
        begun.broken = error.connection_invalidated or sqlstate(error) == READ_ONLY
        raise
    except asyncio.CancelledError:
        begun.broken = True
        raise
    finally:
        await _end(begun)


async def _begin(pool: AsyncEngine, *, readonly: bool) -> _Begun:
    """BEGIN, on another connection when one is found dead: a restart of the server costs its callers nothing."""
    until = clock.monotonic() + BEGIN_S
    while True:
        connection = await pool.connect()
        try:
            return await _start(connection, readonly=readonly)
        except BaseException as error:
            await connection.invalidate()
            await connection.close()
            if not _is_stale(error) or clock.monotonic() > until:
                raise


async def _start(connection: AsyncConnection, *, readonly: bool) -> _Begun:
    assert connection.sync_connection is not None
    begun = _Begun(connection, connection.sync_connection.connection.driver_connection)
    if readonly:
        await begun.raw.execute(_BEGIN_READ, timeout=BEGIN_S)
    else:
        await begun.raw.execute("BEGIN", timeout=BEGIN_S)
        begun.number = await begun.raw.fetchval(commits.NUMBER, timeout=BEGIN_S)
    return begun


def _is_stale(error: BaseException) -> bool:
    return commits.is_open_question(error) or getattr(error, "sqlstate", None) == READ_ONLY


async def _end(begun: _Begun) -> None:
    """Give the connection back as it was; one that cannot be brought there is thrown away."""
    if not begun.ended and not begun.broken:
        begun.broken = True
        if not begun.ending and not begun.raw.is_closed():
            with suppress(*FAILURES):
                await begun.raw.execute("ROLLBACK", timeout=BEGIN_S)
                begun.broken = False
    if begun.broken and not begun.connection.invalidated:
        await begun.connection.invalidate()
    await begun.connection.close()
