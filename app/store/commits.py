"""What became of a COMMIT whose answer was lost: the server knows it by the number of the transaction.

Every write asks for its number right after BEGIN. When the connection breaks at COMMIT, a new one asks what
became of that number; a transaction that is still open there is ended first, so that the answer is final.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from app.errors import OutcomeUnknown, StoreUnavailable
from app.store.connecting import FAILURES, is_lost

log = logging.getLogger(__name__)

#: Seconds within which the server must be back to be asked.
ASK_S = 8.0
PAUSE_S = 0.1
NUMBER = "SELECT pg_current_xact_id()::text"
_STATUS = "SELECT pg_xact_status($1::text::xid8)"
#: By the number alone: behind a pooler the process that we were told of is not the server's.
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = ($1::text::xid8)::xid"

Connect = Callable[[], Awaitable[Any]]


def is_open_question(error: BaseException) -> bool:
    """Whether a COMMIT that failed like this may have been done all the same."""
    return is_lost(error) or isinstance(error, asyncpg.QueryCanceledError)  # it may have waited for a standby


async def was_committed(connect: Connect, number: str) -> bool:
    """Whether transaction `number` is on disk.

    Raises OutcomeUnknown when the server cannot be asked for :data:`ASK_S` seconds.
    """
    try:
        async with asyncio.timeout(ASK_S):
            while (found := await _ask(connect, number)) is None:  # noqa: ASYNC110 (a server tells nobody)
                await asyncio.sleep(PAUSE_S)
            log.warning("the answer to a COMMIT was lost: transaction %s was %s", number, found)
            return found == "committed"
    except TimeoutError as error:
        raise OutcomeUnknown(
            "the database went away at a commit: whether it was done is not known yet",
            hint="look whether it was done; a request with the same Idempotency-Key may be repeated safely",
        ) from error


async def _ask(connect: Connect, number: str) -> str | None:
    """`committed` or `aborted`; None when that is not settled, or nobody answers."""
    try:
        connection = await connect()
    except StoreUnavailable:
        return None
    try:
        found: str | None = await connection.fetchval(_STATUS, number)
        if found == "in progress":
            await connection.fetchval(_END, number)
            return None
    except asyncpg.InvalidParameterValueError:
        return "lost"  # a number of the future: this server, a standby before, never got the transaction
    except FAILURES as error:
        log.warning("what became of transaction %s? %s", number, error or type(error).__name__)
        return None
    finally:
        connection.terminate()
    return found or "forgotten"
