"""A process, life after life: when a node is fenced, its successor registers in the same process.

What listens outside (HTTP) stays up meanwhile; it asks the newest life that has come up.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from app.errors import LeaseLost, StoreUnavailable
from app.scheduler.engine import Engine, running

log = logging.getLogger(__name__)

#: Seconds between two tries to come up; the last is repeated.
RETRY_S: Final = (0.2, 0.5, 1.0, 2.0)


class Lives:
    """Runs an engine; after a fence the next one. `on_life` is told of each that has come up."""

    def __init__(self, first: Engine, on_life: Callable[[Engine], None]) -> None:
        self._present, self._on_life = first, on_life
        self._is_coming = False
        self._first_is_up = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Return when the first life is up; what keeps it from that ends the group."""
        self._task = group.create_task(self._run(), name="lives")
        await self._first_is_up.wait()

    def stop(self) -> None:
        """End the present life in peace; no other follows."""
        self._stopping.set()
        self._present.over.set()
        if self._is_coming and self._task is not None:
            self._task.cancel()  # it may wait for a database that is away

    def hurry(self) -> None:
        """Cut a drain short."""
        self._present.hurry()

    async def _run(self) -> None:
        tries = 0
        while not self._stopping.is_set():
            if await self._live(self._present):
                tries = 0
            elif await self._stopped_within(RETRY_S[min(tries, len(RETRY_S) - 1)]):
                return
            else:
                tries += 1
            self._present = self._present.successor()

    async def _live(self, engine: Engine) -> bool:
        """One life, to its end; whether it came up. The first one that does not is the end of all."""
        came_up, self._is_coming = False, True
        try:
            async with running(engine):
                came_up, self._is_coming = True, False
                self._has_come_up(engine)
                await engine.over.wait()
        except* (StoreUnavailable, LeaseLost) as errors:
            if not self._first_is_up.is_set():
                raise
            log.warning("the next node is not up yet: %s", errors.exceptions[0])
        self._is_coming = False
        return came_up

    def _has_come_up(self, engine: Engine) -> None:
        if self._first_is_up.is_set():
            log.info("node %s goes on in place of the one that lost its lease", engine.node_id)
        self._on_life(engine)
        self._first_is_up.set()

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def living(lives: Lives) -> AsyncIterator[Lives]:
    """Lives go on while the context is open; it opens when the first is up, and closes when the last has stopped."""
    async with asyncio.TaskGroup() as group:
        await lives.start(group)
        try:
            yield lives
        finally:
            lives.stop()
