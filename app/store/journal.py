"""The journal: durability bought in bulk.

Whatever units have come while the last flush was on its way become the next flush: one transaction on
SQLite's writer, one function call on Postgres. One flush is in flight at a time. See `docs/adr` for why.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from app.errors import LeaseLost, StoreUnavailable
from app.store.units import Mismatch, Unit, Verdict

log = logging.getLogger(__name__)

#: Units in one flush at most.
MAX_UNITS = 500
RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)

Answer = Verdict | LeaseLost | Mismatch | None  # None: the run's row is locked; ask again in the next flush


class Backend(Protocol):
    """Writes one batch of units; one implementation a dialect."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def flush(self, units: Sequence[Unit]) -> list[Answer]:
        """Write the units in one transaction; an answer each. Raises StoreUnavailable when none was written."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Journal:
    """Takes units from the runners and answers each when it is on disk."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: list[tuple[Unit, asyncio.Future[Verdict]]] = []
        self._wake = asyncio.Event()
        self._in_flight: list[tuple[Unit, asyncio.Future[Verdict]]] = []
        self._stopping = self._ended = self._refusing = False
        self.flushes = self.units = 0

    async def submit(self, unit: Unit) -> Verdict:
        """Make a unit durable. Raises LeaseLost when the run is no longer this node's, or the journal has ended.

        While the database is away this waits: nothing new starts, finished results keep in memory.
        """
        if self._ended or self._refusing:
            raise LeaseLost("this node writes nothing any more")
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((unit, future))
        self._wake.set()
        return await asyncio.shield(future)

    async def run(self) -> None:
        """Flush until :meth:`stop`; the engine owns this task."""
        with suppress(StoreUnavailable, LeaseLost):  # the first flush tries again, and tells who asks
            await self._backend.open()
        try:
            while not (self._stopping and not self._waiting):
                await self._wake.wait()
                await asyncio.sleep(0)  # let whoever is ready in this loop turn join the flush
                self._wake.clear()
                while self._waiting:
                    await self._flush()
        finally:
            self._end()
            await self._backend.close()

    def _end(self) -> None:
        """Whoever still waits is told: with the journal gone, the run is for others to go on with."""
        self._ended = True
        for _unit, future in self._in_flight + self._waiting:
            if not future.done():
                _answer(future, LeaseLost("this node stopped before it could write"))
        self._in_flight, self._waiting = [], []

    def stop(self) -> None:
        """End :meth:`run` once everything that was submitted is answered."""
        self._stopping = True
        self._wake.set()

    def refuse(self) -> None:
        """Write nothing from now on, not even what waits; may be called from any thread."""
        self._refusing = True

    async def _flush(self) -> None:
        batch, self._waiting = self._waiting[:MAX_UNITS], self._waiting[MAX_UNITS:]
        self._in_flight = batch
        answers = await self._until_written([unit for unit, _ in batch])
        self.flushes += 1
        self.units += len(batch)
        again = []
        for (unit, future), answer in zip(batch, answers, strict=True):
            if answer is None:
                again.append((unit, future))
            elif not future.done():
                _answer(future, answer)
        self._in_flight = []
        if again:
            self._waiting = again + self._waiting
            await asyncio.sleep(0.05)  # a row lock is held by a short transaction of another node

    async def _until_written(self, units: list[Unit]) -> list[Answer]:
        tries = 0
        while not self._refusing:
            try:
                return await self._backend.flush(units)
            except LeaseLost as error:
                return [LeaseLost(str(error)) for _ in units]
            except StoreUnavailable as error:
                delay = RETRY_S[min(tries, len(RETRY_S) - 1)]
                tries += 1
                log.warning("journal: %s; trying again in %.1f s (%d units wait)", error, delay, len(units))
                with suppress(TimeoutError):
                    await asyncio.sleep(delay)
        return [LeaseLost("this node writes nothing any more") for _ in units]


def _answer(future: asyncio.Future[Verdict], answer: Verdict | LeaseLost | Mismatch) -> None:
    if isinstance(answer, Verdict):
        future.set_result(answer)
    else:
        future.set_exception(answer)
        future.exception()  # marked as seen: a runner that was cancelled meanwhile will not fetch it
