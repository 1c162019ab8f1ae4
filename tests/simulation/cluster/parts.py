"""What a node has of its process and its host, on virtual time: alarm clock, lease keeper, voice."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from datetime import datetime, timedelta
from typing import Any

from app import clock
from app.errors import StoreUnavailable
from app.scheduler.membership import Membership
from app.scheduler.timers import Pass
from app.store import nodes
from app.store.lease import Fenced, Lease
from tests.simulation.cluster.loop import PROCESS

log = logging.getLogger(__name__)

#: Whether a turn is of the lease's thread, which goes on by itself when a process goes on.
KEEPER: ContextVar[bool] = ContextVar("KEEPER", default=False)


class AlarmClock:
    """Stands in for `Timers`: passes at intervals, never two of a name at once, and one at a moment of its own."""

    def __init__(self) -> None:
        self._jobs: list[tuple[float, str, Pass, float]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def every(self, seconds: float, name: str, work: Pass, *, jitter_s: float | None = None) -> None:
        """See `Timers.every`."""
        self._jobs.append((seconds, name, work, jitter_s or 0.0))

    def at(self, when: datetime, name: str, work: Pass) -> None:
        """See `Timers.at`."""
        known = self._tasks.get(name)
        if known is None or known.done():
            self._tasks[name] = asyncio.ensure_future(self._once(when, work))

    async def _once(self, when: datetime, work: Pass) -> None:
        await asyncio.sleep(max(0.0, (when - clock.now()) / timedelta(seconds=1)))
        await self._do("due", work)

    def start(self) -> None:
        """Begin."""
        for job in self._jobs:
            self._tasks[job[1]] = asyncio.ensure_future(self._repeat(*job))

    async def _repeat(self, seconds: float, name: str, work: Pass, jitter: float) -> None:
        dice: random.Random = PROCESS.get().dice
        while True:
            await asyncio.sleep(seconds + dice.uniform(-jitter, jitter) * min(1.0, seconds / 4))
            await self._do(name, work)

    async def _do(self, name: str, work: Pass) -> None:
        try:
            await work()
        except Exception as error:  # the real one logs it, and comes again
            log.exception("the pass '%s' failed: %r", name, error)

    def stop(self) -> None:
        """End."""
        for task in self._tasks.values():
            task.cancel()


class KeptLease(Lease):
    """The lease with its own logic, as a task beside the loop instead of a thread."""

    def start(self, since: float | None = None) -> None:
        """Begin."""
        self._begin(clock.steady() if since is None else since)
        context = copy_context()
        context.run(KEEPER.set, True)
        self._keeper = asyncio.get_running_loop().create_task(self._keep_here(), context=context)

    async def _keep_here(self) -> None:
        why = "its keeper ended"
        try:
            why = await self._renew_on()
        except asyncio.CancelledError:
            if not PROCESS.get().dead:
                return
            raise
        finally:
            if not self._stopped:
                self._lost(why)

    async def _renew(self) -> bool:
        sent = clock.steady()
        server = PROCESS.get().server
        try:
            async with asyncio.timeout(min(self._every_s, self._left_s())):
                shown = await server.ask(self._prolong(server), "lease", readonly=False)
        except (StoreUnavailable, TimeoutError):
            return False
        if shown is None:
            raise Fenced
        self._renewed(sent, clock.steady(), shown)
        return True

    def _prolong(self, server: Any) -> Callable[[Any], datetime | None]:
        def renew(tx: Any) -> datetime | None:
            now = clock.now()  # in the server: the database's
            return now if nodes.renew(tx, self._node_id, now=now, lease_s=self._lease_s) else None

        return renew

    async def stop(self) -> None:
        """End."""
        self._stopped = True
        self._keeper.cancel()


class WatchedMembership(Membership):
    """A membership whose clearing up is watched by the simulation, since no thread may wait for it here."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._ended = PROCESS.get().life_begins(self)

    def ended(self) -> None:
        """See `Membership.ended`."""
        PROCESS.get().life_ended(self)


class NoWait:
    """Stands in for the event that a fence waits for in its thread."""

    def wait(self, _timeout: float) -> bool:
        """Say that it is so; the simulation sees to it that it becomes so."""
        return True


class Voice:
    """Carries words between processes: late, sometimes never, and after a break with a word that some are missing."""

    def __init__(self, heard: Callable[[list[str]], None], missed: Callable[[], None]) -> None:
        self._heard, self._missed = heard, missed
        self._process = PROCESS.get()
        self._words: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self.deaf_until = 0.0

    def say(self, *words: str) -> None:
        """See `Signals.say`."""
        self._words |= dict.fromkeys(words)
        self._wake.set()

    def stop(self) -> None:
        """See `Signals.stop`."""
        self._stopping = True
        self._wake.set()

    async def serve(self) -> None:
        """See `Signals.serve`."""
        air = self._process.air
        air.append(self)
        try:
            self._missed()
            while not self._stopping or self._words:
                await self._wake.wait()
                self._wake.clear()
                words, self._words = list(self._words), {}
                self._spread(words)
                await asyncio.sleep(0.05)
        finally:
            air.remove(self)

    def _spread(self, words: list[str]) -> None:
        process = self._process
        for other in process.air:
            if other is not self and words and process.dice.random() >= process.world.words_lost:
                other.take(words, process.dice.uniform(0.001, 0.1))

    def take(self, words: list[str], delay: float) -> None:
        """Hear words in a moment, unless the connection is broken then."""
        loop = asyncio.get_running_loop()
        context = copy_context()
        context.run(PROCESS.set, self._process)
        loop.call_later(delay, self._hear, words, context=context)

    def _hear(self, words: list[str]) -> None:
        if asyncio.get_running_loop().time() >= self.deaf_until and self in self._process.air:
            self._heard(words)

    def break_for(self, seconds: float) -> None:
        """Lose the connection; once it is back, everything is looked at."""
        loop = asyncio.get_running_loop()
        self.deaf_until = loop.time() + seconds
        context = copy_context()
        context.run(PROCESS.set, self._process)
        loop.call_later(seconds, self._back, context=context)

    def _back(self) -> None:
        if self in self._process.air:
            self._missed()
