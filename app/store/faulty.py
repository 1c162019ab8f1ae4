"""A database and a journal with failpoints around their transactions: tests open them in place of the real ones."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Concatenate

from sqlalchemy import Connection

from app.errors import OutcomeUnknown, StoreUnavailable
from app.failpoints import TRANSACTIONS, Failpoints
from app.store.db import Database, P, T
from app.store.journal import Answer, Backend
from app.store.units import Unit


class FaultyDatabase:
    """Passes everything on to `inner`, through the places of the transactions that have a name."""

    def __init__(self, inner: Database, points: Failpoints) -> None:
        self.inner, self.points = inner, points
        self.dialect, self.shared, self.url = inner.dialect, inner.shared, inner.url

    async def open(self) -> None:
        """See `Database.open`."""
        await self.inner.open()

    async def write(
        self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """See `Database.write`."""
        await self._require_alive()
        name = TRANSACTIONS.get(f"{fn.__module__.rpartition('.')[2]}.{getattr(fn, '__name__', '')}")
        if name is None:
            return await self.inner.write(fn, *args, **kwargs)

        def within(tx: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
            result = fn(tx, *args, **kwargs)
            self.points.hit(f"{name}.before_commit", StoreUnavailable)
            return result

        try:
            result = await self.inner.write(within, *args, **kwargs)
        except StoreUnavailable:
            await self._require_alive()
            raise
        await self.points.reach(f"{name}.after_commit", OutcomeUnknown)
        return result

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Database.read`."""
        await self._require_alive()
        return await self.inner.read(fn, *args, **kwargs)

    async def close(self) -> None:
        """See `Database.close`."""
        await self._require_alive()
        await self.inner.close()

    async def _require_alive(self) -> None:
        """Whoever was killed comes to nothing any more: where the process lives on, its tasks stand still."""
        if self.points.dead:
            await asyncio.Future()


class FaultyJournal:
    """Passes flushes on to `inner`, through the places of what they carry."""

    def __init__(self, inner: Backend, points: Failpoints) -> None:
        self._inner, self._points = inner, points

    async def open(self) -> None:
        """See `Backend.open`."""
        await self._inner.open()

    async def flush(self, units: Sequence[Unit]) -> list[Answer]:
        """See `Backend.flush`."""
        carried = _carried(units)
        for step in carried:
            await self._points.reach(f"{step}.before_commit", StoreUnavailable)
        answers = await self._inner.flush(units)
        for step in carried:
            await self._points.reach(f"{step}.after_commit", StoreUnavailable)
        return answers

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._inner.close()


def _carried(units: Sequence[Unit]) -> list[str]:
    """The steps that are in a flush, in the order of the places."""
    having: dict[str, Callable[[Unit], Any]] = {
        "finish": lambda u: any(not f.hook for f in u.finishes),
        "hook": lambda u: any(f.hook for f in u.finishes) or any(s.hook for s in u.starts),
        "start": lambda u: any(not s.hook for s in u.starts),
        "settle": lambda u: u.settles,
        "plan": lambda u: u.plans,
        "wait": lambda u: u.waits,
        "close": lambda u: u.close,
        "log": lambda u: u.chunks,
    }
    return [step for step, has in having.items() if any(has(unit) for unit in units)]
