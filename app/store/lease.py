"""The node's lease on Postgres, renewed from a thread with a loop and a connection of its own.

The thread renews only while the main loop has marked itself alive, so that a hung loop loses its lease like a
dead process. A node that cannot renew for 0.6 of the lease stops itself, well before anybody takes over.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg

from app import clock
from app.errors import StoreUnavailable
from app.store.postgres import connect_raw

log = logging.getLogger(__name__)

FENCE_SHARE = 0.6
_RENEW = (
    "UPDATE node SET lease_until = clock_timestamp() + make_interval(secs => $2)"
    " WHERE id = $1 AND state IN ('live', 'draining') RETURNING clock_timestamp()"
)


class Lease:
    """Keeps `node.lease_until` ahead. `lost` is called once, from the thread, when that is over."""

    def __init__(self, url: str, node_id: str, lease_s: float, lost: Callable[[str], None]) -> None:
        self._url, self._node_id, self._lease_s, self._lost = url, node_id, lease_s, lost
        self._every_s = lease_s / 4
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._alive_at = self._renewed_at = clock.monotonic()

    def start(self) -> None:
        """Begin; the lease that :func:`app.store.nodes.register` gave counts as the first renewal."""
        self._alive_at = self._renewed_at = clock.monotonic()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        """Whatever ends the renewing, other than :meth:`stop`, is the end of the lease."""
        why = "its keeper ended"
        try:
            why = asyncio.run(self._run())
        finally:
            if not self._stop.is_set():
                self._lost(why)

    def mark_alive(self) -> None:
        """Tell that the main loop turns; call it at least every quarter of the lease."""
        self._alive_at = clock.monotonic()

    async def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10)

    async def _run(self) -> str:
        """Renew until stopped; returns why the lease is over."""
        connection: Any = None
        while not await asyncio.to_thread(self._stop.wait, min(self._every_s, self._left_s())):
            if clock.monotonic() - self._alive_at < self._lease_s * FENCE_SHARE:
                connection = await self._renew(connection)
            if connection is False:
                return "fenced by another node"
            if self._left_s() <= 0:
                return "the lease could not be renewed"
        if connection:
            with suppress(*_BROKEN):
                await connection.close(timeout=2)
        return "stopped"

    def _left_s(self) -> float:
        """Seconds until this node must be gone, however long the database takes to answer."""
        return max(0.0, self._renewed_at + self._lease_s * FENCE_SHARE - clock.monotonic())

    async def _renew(self, connection: Any) -> Any:
        """One renewal; the connection to go on with, None when it broke, False when the node is fenced."""
        sent, sent_at = clock.monotonic(), clock.host_now()
        try:
            async with asyncio.timeout(min(self._every_s, self._left_s())):
                connection = connection or await connect_raw(self._url)
                database_now = await connection.fetchval(_RENEW, self._node_id, self._lease_s)
        except _BROKEN as error:
            log.warning("lease: not renewed: %s", error or type(error).__name__)
            if connection:
                connection.terminate()
            return None
        if database_now is None:
            return False
        self._renewed_at = sent
        # The database looked at its clock somewhere within the round trip: its middle is the best guess.
        clock.adjust(database_now - (sent_at + (clock.host_now() - sent_at) / 2))
        return connection


_BROKEN = (StoreUnavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError)
