"""The node's lease on Postgres, renewed from a thread with a loop and a connection of its own.

The thread renews only while the main loop has marked itself alive, so that a hung loop loses its lease like a
dead process. A node that cannot renew for 0.6 of the lease stops itself, well before anybody takes over.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from app import clock
from app.errors import StoreUnavailable
from app.store.connecting import FAILURES, connect_raw
from app.store.tenure import FENCE_SHARE, JUMP_S, Tenure

log = logging.getLogger(__name__)

_RENEW = (
    "UPDATE node SET lease_until = clock_timestamp() + make_interval(secs => $2)"
    " WHERE id = $1 AND state IN ('live', 'draining') RETURNING clock_timestamp()"
)


class Fenced(Exception):
    """The row says that this node is over."""


class Lease:
    """Keeps `node.lease_until` ahead. `lost` is called once, from the thread, when that is over."""

    def __init__(self, url: str, node_id: str, lease_s: float, lost: Callable[[str], None]) -> None:
        self._url, self._node_id, self._lease_s, self._lost = url, node_id, lease_s, lost
        self._every_s = lease_s / 4
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._connection: Any = None
        self._begin(clock.steady())

    def _begin(self, since: float) -> None:
        self._alive_at = at = clock.steady()
        self._tenure = Tenure(self._lease_s, since=since, renewed=since, database=clock.now(), at=at)

    def start(self, since: float | None = None) -> None:
        """Begin; the lease of :func:`app.store.nodes.register`, sent at steady time `since`, is the first renewal."""
        self._begin(clock.steady() if since is None else since)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def mark_alive(self) -> None:
        """Tell that the main loop turns; call it at least every quarter of the lease."""
        self._alive_at = clock.steady()

    def is_held(self) -> bool:
        """Whether this node may still act; asks no database."""
        return self._tenure.left_s(clock.steady()) > 0

    def judges(self) -> datetime | None:
        """Leases of others that ended before then have ended for good; None while this node must judge nobody."""
        return self._tenure.judges(clock.steady())

    async def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        if self._thread is None:
            return
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        await asyncio.to_thread(self._thread.join, 1)

    def _keep(self) -> None:
        """Whatever ends the renewing, other than :meth:`stop`, is the end of the lease."""
        why = "its keeper ended"
        try:
            why = asyncio.run(self._run())
        finally:
            if not self._stopped:
                self._lost(why)

    async def _run(self) -> str:
        """Renew until stopped; returns why the lease is over."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            return await self._renew_on()
        except asyncio.CancelledError:  # by `stop` alone
            return "stopped"
        finally:
            await self._disconnect()

    async def _renew_on(self) -> str:
        pause = self._every_s
        while not self._stopped:
            await asyncio.sleep(min(pause, self._left_s()))
            if clock.steady() - self._alive_at < self._lease_s * FENCE_SHARE:
                try:
                    pause = self._every_s if await self._renew() else self._every_s / 5
                except Fenced:
                    return "fenced by another node"
            if self._left_s() <= 0:
                return "the lease could not be renewed"
        return "stopped"

    def _left_s(self) -> float:
        """Seconds until this node must be gone, however long the database takes to answer."""
        return self._tenure.left_s(clock.steady())

    async def _renew(self) -> bool:
        """One renewal; False when the database did not answer in time. Raises Fenced."""
        sent = clock.steady()
        try:
            async with asyncio.timeout(min(self._every_s, self._left_s())):
                if self._connection is None:
                    self._connection = await connect_raw(self._url)
                    sent = clock.steady()
                database_now = await self._connection.fetchval(_RENEW, self._node_id, self._lease_s)
        except (StoreUnavailable, *FAILURES) as error:
            log.warning("lease: not renewed: %s", error or type(error).__name__)
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            return False
        if database_now is None:
            raise Fenced
        self._renewed(sent, clock.steady(), database_now)
        return True

    def _renewed(self, sent: float, answered: float, database_now: datetime) -> None:
        jump = self._tenure.renew(sent, answered, database_now)
        if abs(jump) > timedelta(seconds=JUMP_S):
            log.warning("the database's clock has jumped by %.0f s", jump.total_seconds())
        clock.anchor(self._tenure.database, self._tenure.at)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*FAILURES):
                await connection.close(timeout=1)
