"""Runs that only wait for a time: one heap and one timer for all of them, whatever their number."""

import asyncio
import heapq
from collections.abc import Callable
from datetime import datetime, timedelta

from app import clock

#: Wake-ups this close together are served by one timer.
GRAIN_S = 0.05
#: Entries of runs that were taken before their time, besides as many as are parked.
SLACK = 100


class Parking:
    """Calls `wake(run_id)` on the loop when a parked run's time has come."""

    def __init__(self, wake: Callable[[int], None]) -> None:
        self._wake = wake
        self._heap: list[tuple[datetime, int]] = []
        self._times: dict[int, datetime] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._times

    def __len__(self) -> int:
        return len(self._times)

    def park(self, run_id: int, wake_at: datetime) -> None:
        """Keep a run until `wake_at`; parking it again replaces the time."""
        self._times[run_id] = wake_at
        if len(self._heap) > 2 * len(self._times) + SLACK:  # what was taken lies here until its time
            self._heap = [(at, parked) for parked, at in self._times.items() if parked != run_id]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (wake_at, run_id))
        if self._heap[0][1] == run_id:
            self._set_timer()

    def take(self, run_id: int) -> bool:
        """Let a run go before its time; False when it is not here."""
        return self._times.pop(run_id, None) is not None

    def close(self) -> None:
        """Forget everything; what was parked is found again in the database."""
        self._times.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = (self._heap[0][0] - clock.now()) / timedelta(seconds=1)
        self._timer = asyncio.get_running_loop().call_later(max(left, GRAIN_S), self._serve)

    def _serve(self) -> None:
        now = clock.now()
        while self._heap and self._heap[0][0] <= now:
            wake_at, run_id = heapq.heappop(self._heap)
            if self._times.get(run_id) == wake_at:  # else it was taken, or parked anew
                del self._times[run_id]
                self._wake(run_id)
        if self._heap:
            self._set_timer()
