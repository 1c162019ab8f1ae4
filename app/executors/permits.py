"""A fixed number of places, given out first come, first served."""

import asyncio
from collections import deque


class Permits:
    """Like a semaphore, with a `take_now`; a waiter that is cancelled takes no place with it."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a place."""
        if self.take_now():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give()  # it was granted in the same moment
            raise

    def take_now(self) -> bool:
        """Take a place if one is free and nobody waits."""
        if self._free > 0 and not any(not waiter.done() for waiter in self._waiters):
            self._free -= 1
            return True
        return False

    def give(self) -> None:
        """Give a place back: to the first who waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
