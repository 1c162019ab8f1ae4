"""An event loop whose time passes only when nothing else can happen, and then at once."""

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from app import clock


class Stuck(RuntimeError):
    """What runs waits for something that can never come: no timer is set, nothing is on its way."""


class _Idle(selectors.SelectSelector):
    """Passes the time that there is to wait instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise Stuck("the run waits for something that never comes")
            self.now += max(timeout, 0.0)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock starts at 0 and counts seconds."""

    def __init__(self) -> None:
        self._idle = _Idle()
        super().__init__(self._idle)

    def time(self) -> float:
        """Seconds that have passed on this loop."""
        return self._idle.now


_began: list[tuple[VirtualLoop, datetime]] = []


@contextmanager
def virtual_time(at: datetime) -> Iterator[VirtualLoop]:
    """A loop whose time starts at `at` (aware), which is also what the program's clock shows meanwhile."""
    loop = VirtualLoop()
    _began.append((loop, at))
    clock.use(_now)
    try:
        yield loop
    finally:
        _began.pop()
        clock.use(_now if _began else None)
        loop.close()


def _now() -> datetime:
    loop, began = _began[-1]
    return began + timedelta(seconds=loop.time())
