"""How a connection to Postgres is made, wherever it is used, and what its failures mean."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import orjson
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import StoreUnavailable
from app.store.db import dumps

log = logging.getLogger(__name__)

#: Errors of a server that cannot serve now, by the beginning of their code: connection lost, out of resources,
#: shutting down or starting up, system error; a lock or an answer that took too long; a standby after a failover.
_UNWELL = ("08", "53", "57", "58", "55P03", "25006")
#: A standby since a failover, or one before it: another connection may lead to the primary.
READ_ONLY = "25006"
#: The connection is gone, or cannot be made; a TimeoutError is an OSError.
AWAY = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)
#: Whatever a call on a connection may fail with, the server's own errors among it.
FAILURES = (*AWAY, asyncpg.PostgresError)
CONNECT_S, ANSWER_S = 10, 15
#: Set once connected, not in the startup packet: PgBouncer in session mode refuses what it does not know there.
SETTINGS = {
    "statement_timeout": "10000",
    "lock_timeout": "3000",
    # No longer than user code outlives a service that stands still: the locks of a frozen one hold up all others.
    "idle_in_transaction_session_timeout": "5000",
    "timezone": "UTC",
    # The server lets go of a peer that is silently gone, and of its locks with it; without effect on a Unix socket.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "15000",
}
#: The same on our side, seconds and milliseconds.
_SOCKET = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 2),
    ("TCP_USER_TIMEOUT", 15_000),
)


async def open_connection(url: str, answer_s: float | None = ANSWER_S, /, **more: str) -> Any:
    """An asyncpg connection with our settings and `more`; raises whatever asyncpg does.

    A call that has no answer after `answer_s` seconds fails; None waits for ever. The URL may name several hosts
    (`?host=a,b&port=5432,5432&target_session_attrs=read-write`): the first that fits is taken.
    """
    connection = await asyncpg.connect(
        url, timeout=CONNECT_S, command_timeout=answer_s, server_settings={"application_name": "runwright"}
    )
    try:
        settings = {**SETTINGS, **more}
        setting = "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())
        await connection.execute(setting, timeout=ANSWER_S)
    except BaseException:
        connection.terminate()
        raise
    keep_alive(getattr(connection, "_transport", None))  # asyncpg shows its socket nowhere else
    return connection


def keep_alive(transport: asyncio.BaseTransport | None) -> None:
    """Have the kernel look after the peer: a firewall that forgets us must not cost a quarter of an hour."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET:
        if (option := getattr(socket, name, None)) is not None:  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def open_patiently(url: str) -> Any:
    """The same for tools: a migration, or a look at everything, takes as long as it takes."""
    return await open_connection(
        url,
        None,
        statement_timeout="0",
        lock_timeout="0",
        idle_in_transaction_session_timeout="0",
    )


def engine_on(
    url: str, connect: Callable[[str], Awaitable[Any]] = open_connection, **options: Any
) -> AsyncEngine:
    """SQLAlchemy's engine whose connections are ours."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        json_serializer=dumps,
        json_deserializer=orjson.loads,
        async_creator=partial(connect, url),
        **options,
    )


@asynccontextmanager
async def first_connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Connect for the first time. Raises StoreUnavailable with address and cause, be it away or not for us."""
    try:
        connection = await engine.connect()
    except (DBAPIError, *FAILURES) as error:
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


async def connect_raw(url: str, **settings: str) -> Any:
    """A connection outside the pools; raises StoreUnavailable."""
    try:
        return await open_connection(url, **settings)
    except FAILURES as error:
        raise away(error) from error


def is_unwell(code: str | None) -> bool:
    """Whether an error code tells of the server's state, not of what was asked."""
    return code is not None and code.startswith(_UNWELL)


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, and with it what became of the call."""
    # 08: connection exceptions; 57P: the server shuts down.
    return isinstance(error, AWAY) or str(getattr(error, "sqlstate", None) or "").startswith(("08", "57P"))


def sqlstate(error: DBAPIError) -> str | None:
    """The code of the server's error, if it is one."""
    return getattr(error.orig, "sqlstate", None)


def tells_of_server(error: BaseException) -> bool:
    """Whether an error, in SQLAlchemy's wrapping or bare, is the server's or the connection's, not a statement's."""
    if not isinstance(error, DBAPIError) or isinstance(error, InterfaceError):
        return isinstance(error, (InterfaceError, *FAILURES))
    silent = isinstance(error, OperationalError) and not sqlstate(error)
    return error.connection_invalidated or silent or is_unwell(sqlstate(error))


def away(error: BaseException) -> StoreUnavailable:
    """The error for callers when Postgres does not answer."""
    cause = str(getattr(error, "orig", None) or error) or type(error).__name__
    log.warning("Postgres does not answer: %s", cause)
    return StoreUnavailable("Postgres does not answer", hint="the request may be repeated once it does")
