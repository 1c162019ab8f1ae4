"""A Postgres advisory lock held over several transactions."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from app.errors import StartRefused
from app.store.connecting import FAILURES, away, connect_raw


@contextmanager
def holding(url: str, key: int) -> Iterator[None]:
    """Hold the lock of this number while the context is open. Raises StartRefused when another program has it."""
    with asyncio.Runner() as runner:
        connection = runner.run(connect_raw(url, idle_session_timeout="0"))
        try:
            if not runner.run(_take(connection, key)):
                raise StartRefused(
                    "Another program changes the schema of this database now.", hint="Try again in a moment."
                )
            yield
        finally:
            with suppress(*FAILURES):  # silent for so long, it may be gone
                runner.run(connection.close(timeout=5))


async def _take(connection: Any, key: int) -> bool:
    try:
        return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", key))
    except FAILURES as error:
        raise away(error) from error
