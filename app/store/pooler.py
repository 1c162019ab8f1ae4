"""Whether a pooler stands before the server that gives every transaction another session (PgBouncer's modes
`transaction` and `statement`). The journal's function, prepared statements and LISTEN live in a session."""

from typing import Any

from app.errors import StartRefused
from app.store.connecting import FAILURES, away, connect_raw

_PID = "SELECT pg_backend_pid()"


async def pooler_suspected(url: str, connection: Any) -> bool:
    """Whether two transactions of this connection may be served by two sessions.

    A direct connection was told its server process when it was made; a pooler tells a number of its own. Then the
    session that served us last is kept busy by another connection: one that is ours alone would wait for us.
    Raises StoreUnavailable.
    """
    try:
        pid = await connection.fetchval(_PID)
        return bool(pid != connection.get_server_pid() and await _is_lent(url, connection, pid))
    except FAILURES as error:
        raise away(error) from error


async def _is_lent(url: str, connection: Any, pid: int) -> bool:
    """Whether others get the session `pid` between two transactions of the connection."""
    other = await connect_raw(url)
    try:
        await other.execute("BEGIN")
        return bool(await other.fetchval(_PID) == pid or await connection.fetchval(_PID) != pid)
    finally:
        other.terminate()


async def refuse_pooler(url: str, connection: Any) -> None:
    """Raise StartRefused behind such a pooler, with the way out."""
    if await pooler_suspected(url, connection):
        raise StartRefused(
            "Before the database is a pooler that gives every transaction another session.",
            hint="Use the port of Postgres itself, or a pool in session mode (PgBouncer: pool_mode = session).",
        )
