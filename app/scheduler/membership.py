"""One identity of this process in the database: registered, kept by a lease, ended in peace or by a fence.

A fence is the lease thread's doing, since the main loop may hang: it ends user code, shuts what writes, and tells
the loop. A process whose loop does not come back and clear up after it ends itself.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from app import clock
from app.errors import LeaseLost, StoreUnavailable
from app.scheduler.node import provably_dead, set_clock, this_node
from app.settings import Settings
from app.store import nodes
from app.store.db import Database
from app.store.lease import Lease

log = logging.getLogger(__name__)

#: Exit code of a process that must not go on: its lease is gone, and its main loop does not clear up.
EXIT_FENCED: Final = 75
#: Leases, and seconds at least, that a fenced life has to end in.
HUNG_LEASES, HUNG_S = 3, 15.0
#: Seconds that a stop waits for the database at each of its steps.
PATIENCE_S: Final = 2.0


class Membership:
    """A node as the database knows it. `former` are identities that this process had, and whose code is dead."""

    def __init__(self, db: Database, settings: Settings, *, former: Sequence[str] = ()) -> None:
        self._db, self._lease_s = db, settings.lease_s
        self.former = tuple(former)
        self.me = this_node(now=clock.now(), lease_s=settings.lease_s)
        #: set on the loop when this life is to end, be it that the lease is lost
        self.over = asyncio.Event()
        #: why it was lost
        self.lost: str | None = None
        self._acts: list[Callable[[], None]] = []
        self._lease: Lease | None = None
        self._joined = False
        self._ended = threading.Event()

    async def join(self, group: asyncio.TaskGroup) -> list[str]:
        """Register, with the dead of this host and the own former identities fenced first; returns their ids."""
        await set_clock(self._db)
        now, sent = clock.now(), clock.steady()
        self.me = replace(self.me, started_at=now, lease_until=now + timedelta(seconds=self._lease_s))
        alive = await self._db.read(nodes.alive)
        dead = [n.id for n in provably_dead(alive, self.me, only_one=not self._db.shared)]
        dead += self.former
        await self._db.write(nodes.fence, dead, now=clock.now())
        await self._db.write(nodes.register, self.me)
        self._joined = True
        if self._db.shared:
            self._loop = asyncio.get_running_loop()
            self._lease = Lease(self._db.url, self.me.id, self._lease_s, self._fence)
            self._lease.start(sent)
            self._marking = group.create_task(self._mark_alive(self._lease), name="alive")
        return dead

    @property
    def heritage(self) -> tuple[str, ...]:
        """What the next life of this process must declare dead."""
        return (self.me.id,) if self._joined else self.former

    def at_fence(self, act: Callable[[], None]) -> None:
        """Have something done the moment the lease is lost, by the lease thread; at once when it is lost already."""
        self._acts.append(act)
        if self.lost is not None:
            act()

    def require(self) -> None:
        """Raise LeaseLost for a node that is over."""
        if self.lost is not None:
            raise LeaseLost(self.lost)

    def may_act(self) -> bool:
        """Whether this node may begin anything, by its own steady clock: its lease's thread may not have had a turn."""
        return self.lost is None and (self._lease is None or self._lease.is_held())

    def judges(self) -> datetime | None:
        """The moment before which the leases of the dead have ended; None while this node may not judge others."""
        return None if self._lease is None or self.lost is not None else self._lease.judges()

    async def drain(self) -> bool:
        """Say that this node takes nothing new; False when the database is away."""
        return await self._briefly("drain", self._db.write(nodes.drain, self.me.id))

    async def leave(self, *last_words: Callable[[], Awaitable[None]], reached: bool) -> None:
        """End in peace: from here on others go on with what this node owned.

        Not for one that was fenced, nor while the database cannot be `reached`: others notice by the lease.
        """
        if self._lease is not None:
            self._marking.cancel()
            if self.lost is None:  # else its thread watches over this clearing up
                await self._lease.stop()
        if self._joined and reached and self.lost is None:
            left = await self._briefly(
                "hand over", self._db.write(nodes.hand_over, self.me.id, now=clock.now())
            )
            for speak in last_words if left else ():
                await self._briefly("hand over", speak())

    def ended(self) -> None:
        """Say that this life has cleared up; until then a fenced one is watched."""
        self._ended.set()

    async def _briefly(self, what: str, work: Awaitable[None]) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await work
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("stop: %s: %s", what, error or "the database does not answer")
            return False
        return True

    async def _mark_alive(self, lease: Lease) -> None:
        """Tell the lease that this loop turns, from the start to the end of a drain."""
        while True:
            lease.mark_alive()
            await asyncio.sleep(self._lease_s / 8)

    def _fence(self, why: str) -> None:
        """In the lease thread: end user code, shut what writes, tell the loop, and see that it clears up."""
        self.lost = why
        log.critical("node %s is over: %s; user code is ended, a new node follows", self.me.id, why)
        for act in list(self._acts):
            try:
                act()
            except Exception:  # each of them counts
                log.exception("at the fence")
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self.over.set)
        if not self._ended.wait(max(HUNG_LEASES * self._lease_s, HUNG_S)):
            die("the fenced node does not clear up: its main loop hangs")


def die(reason: str) -> None:
    """End this process at once: the warden sees it and kills all user code."""
    log.critical("this process must not go on: %s", reason)
    os._exit(EXIT_FENCED)
