"""Postgres through SQLAlchemy's asyncpg dialect: every store function is one short transaction.

Deadlocks and serialization failures are tried again here, since a store function is a whole transaction and
has no effect outside it. A lost connection is not: whether its COMMIT arrived is for the caller to ask.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate

import asyncpg
import orjson
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import StoreUnavailable
from app.store.db import P, T, bound, dumps

log = logging.getLogger(__name__)

POOL_SIZE = 8
POOL_TIMEOUT_S = 2.0
TRIES = 5
#: serialization_failure, deadlock_detected
_RETRY = frozenset({"40001", "40P01"})
#: Errors of a server that cannot serve now, by the beginning of their code: connection lost, out of resources,
#: shutting down or starting up, system error; a lock or an answer that took too long; a standby after a failover.
_UNWELL = ("08", "53", "57", "58", "55P03", "25006")
_AWAY = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncio.TimeoutError)
SERVER_SETTINGS = {
    "application_name": "runwright",
    "statement_timeout": "10000",
    "lock_timeout": "3000",
    "idle_in_transaction_session_timeout": "15000",
    "timezone": "UTC",
}


class PostgresDatabase:
    """The production database."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        """Make the pool and prove that the database answers."""
        self._engine = create_async_engine(
            make_url(self.url).set(drivername="postgresql+asyncpg"),
            json_serializer=dumps,
            json_deserializer=orjson.loads,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=False,  # a dead connection is found by use; a ping would cost every transaction
            connect_args={"server_settings": SERVER_SETTINGS, "timeout": 10, "command_timeout": 15},
        )
        async with first_connection(self._engine):
            pass

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `fn` in a transaction, again on a deadlock."""
        call = bound(fn, args, kwargs)
        for tries_left in reversed(range(TRIES)):
            try:
                return await self._transaction(call, readonly=False)
            except DBAPIError as error:
                if sqlstate(error) not in _RETRY:
                    raise
                if not tries_left:
                    raise away(error) from error
                await asyncio.sleep(random.uniform(0, 0.05))  # apart from the transaction it met
        raise AssertionError("unreachable")

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` in a read-only transaction."""
        return await self._transaction(bound(fn, args, kwargs), readonly=True)

    async def _transaction(self, call: Callable[[Connection], T], *, readonly: bool) -> T:
        if self._engine is None:
            raise StoreUnavailable("the database is not open")
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(postgresql_readonly=readonly)
                async with connection.begin():
                    return await connection.run_sync(call)
        except (PoolTimeout, InterfaceError, *_AWAY) as error:
            raise away(error) from error
        except asyncpg.PostgresError as error:  # of the connecting, which SQLAlchemy passes on as it is
            raise away(error) from error
        except DBAPIError as error:
            silent = isinstance(error, OperationalError) and not sqlstate(error)
            if error.connection_invalidated or silent or is_unwell(sqlstate(error)):
                raise away(error) from error
            raise

    async def close(self) -> None:
        """Close the pool."""
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None


@asynccontextmanager
async def first_connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Connect for the first time. Raises StoreUnavailable with address and cause, be it away or not for us."""
    try:
        connection = await engine.connect()
    except (DBAPIError, asyncpg.PostgresError, *_AWAY) as error:
        cause = str(getattr(error, "orig", None) or error) or type(error).__name__
        address = engine.url.set(drivername="postgresql").render_as_string()
        raise StoreUnavailable(
            f"The database {address} cannot be used: {cause}.",
            hint="Does it run there, and are name and password right?",
        ) from error
    try:
        yield connection
    finally:
        await connection.close()


def sqlstate(error: DBAPIError) -> str | None:
    """The server's error code behind a SQLAlchemy error, if the server answered."""
    return getattr(error.orig, "sqlstate", None)


def is_unwell(code: str | None) -> bool:
    """Whether an error code tells of the server's state, not of what was asked."""
    return code is not None and code.startswith(_UNWELL)


def away(error: BaseException) -> StoreUnavailable:
    """The error for callers when Postgres does not answer."""
    cause = str(getattr(error, "orig", None) or error) or type(error).__name__
    log.warning("Postgres does not answer: %s", cause)
    return StoreUnavailable("Postgres does not answer", hint="the request may be repeated once it does")


async def connect_raw(url: str, **server_settings: str) -> Any:
    """A connection outside the pool, for the journal; raises StoreUnavailable."""
    try:
        return await asyncpg.connect(
            url, timeout=10, command_timeout=15, server_settings={**SERVER_SETTINGS, **server_settings}
        )
    except (*_AWAY, asyncpg.PostgresError) as error:
        raise away(error) from error
