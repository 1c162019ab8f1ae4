"""What happened, as frozen values, and the bus that carries them inside one process.

An event is published only after the transaction it tells of has committed. Subscribers never block a
publisher: each has a bounded queue, and one that does not keep up is told so by `Overflow` and must re-read.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.models.rows import LogRow
from app.models.states import BlockStatus, Cause, Outcome, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base: every event belongs to one pipeline run."""

    run_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCreated(Event):
    """A run exists."""

    pipeline_uuid: str
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A node owns the run and drives it; `epoch` above 1 is a takeover or a return after parking."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """The run is over for good."""

    status: RunStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStarted(Event):
    """An attempt of a block is on disk and about to run."""

    block_uuid: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEnded(Event):
    """A block run moved on: finished for good, or queued for another attempt at `wake_at`."""

    block_uuid: str
    status: BlockStatus
    attempt: int = 0
    outcome: Outcome | None = None
    error: Mapping[str, Any] | None = None
    duration_s: float | None = None
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWritten(Event):
    """Log lines of the run are stored."""

    lines: tuple[LogRow, ...]


#: The `run_id` of an event about a slot that never got a run.
NO_RUN = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaMissed(Event):
    """A run is not over by its SLA, or a slot that should have had one got none; once for each."""

    pipeline_uuid: str
    pipeline_schedule_id: int | None
    execution_date: datetime | None
    sla_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Event):
    """Another node has changed the run; what, is to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow(Event):
    """The subscriber was too slow; events were dropped and must be read from the database."""


@dataclass(slots=True, eq=False)
class Subscription:
    """A bounded queue of events; iterate it, or drain it with :meth:`take`."""

    run_id: int | None
    limit: int
    _queue: deque[Event] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, event: Event) -> None:
        """Take an event in, or replace everything by one Overflow when full."""
        if len(self._queue) >= self.limit:
            self._queue.clear()
            self._queue.append(Overflow(run_id=event.run_id))
        self._queue.append(event)
        self._wake.set()

    def take(self) -> list[Event]:
        """Everything that has come since the last call."""
        events = list(self._queue)
        self._queue.clear()
        self._wake.clear()
        return events

    async def any(self, timeout_s: float) -> bool:
        """Wait until something comes in, at most so many seconds; everything that came is dropped."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return bool(self.take())

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            await self._wake.wait()
            for event in self.take():
                yield event


class Bus:
    """Publishes to whoever listens now; keeps nothing."""

    def __init__(self) -> None:
        self._all: set[Subscription] = set()
        self._by_run: dict[int, set[Subscription]] = {}
        self._relays: dict[int, Callable[[Event], None]] = {}

    def publish(self, *events: Event) -> None:
        """Hand events to the subscribers. Call it on the loop's thread, after the commit."""
        for event in events:
            for subscription in (*self._all, *self._by_run.get(event.run_id, ())):
                subscription.put(event)
            if tell := self._relays.get(event.run_id):
                tell(event)

    def relay(self, run_id: int, tell: Callable[[Event], None] | None) -> None:
        """Call `tell` with every event of a run, for those outside this process; None ends it."""
        if tell is None:
            self._relays.pop(run_id, None)
        else:
            self._relays[run_id] = tell

    def listened(self, run_id: int) -> bool:
        """Whether anybody would get an event of this run: spares building what nobody reads."""
        return bool(self._all) or run_id in self._by_run or run_id in self._relays

    @contextmanager
    def subscribe(self, run_id: int | None = None, *, limit: int = 10_000) -> Iterator[Subscription]:
        """Listen to one run, or to all, while the context is open."""
        subscription = Subscription(run_id, limit)
        group = self._all if run_id is None else self._by_run.setdefault(run_id, set())
        group.add(subscription)
        try:
            yield subscription
        finally:
            group.discard(subscription)
            if run_id is not None and not group:
                self._by_run.pop(run_id, None)
