"""What the runs of a node share, and what a running block holds."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from app.events import Bus
from app.executors.base import Executor, Slot
from app.models.rows import RunRow
from app.store.journal import Journal


async def _untold(run_id: int) -> None:
    return None


async def _none_left(run_id: int, block_uuid: str) -> Mapping[str, tuple[int, str]]:
    return {}


@dataclass(slots=True, kw_only=True)
class Hooks:
    """What a run needs of the engine above it: answers for its blocks, and somebody to tell."""

    answer: Callable[[RunRow, str, str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
    cancel: Callable[[int], Awaitable[Any]]
    block_ids: Callable[[int], Awaitable[Sequence[int]]]
    #: whether this node may begin anything: not when its lease is over
    may_act: Callable[[], bool]
    freed: Callable[[], None] = lambda: None
    #: (run, block uuid) -> what its completed children left there
    left_children: Callable[[int, str], Awaitable[Mapping[str, tuple[int, str]]]] = _none_left
    sla: Callable[[int], Awaitable[None]] = _untold


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every run of a node shares."""

    journal: Journal
    bus: Bus
    workers: Executor
    inline: Executor | None
    project: Path
    artifacts: Path
    python: Callable[[], str | None]
    env: str
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the runner let go of a run: it is over, it waits until `wake_at`, or it is somebody else's."""

    kind: Literal["closed", "parked", "lost", "handed_over"]
    wake_at: datetime | None = None


@dataclass(slots=True, eq=False)
class Held:
    """A worker slot with the permits that go with it. It knows what of them it has, so none is given back twice."""

    slot: Slot
    inline: bool
    permits: list[asyncio.Semaphore]

    lent: bool = False
    _lent_permits: list[asyncio.Semaphore] = field(default_factory=list)
    _released: bool = False

    def lend(self) -> None:
        """Let others use the place and the permits while this block only waits."""
        self.lent = True
        self.slot.lend()
        while self.permits:
            self._lent_permits.append(self.permits.pop())
            self._lent_permits[-1].release()

    async def reclaim(self) -> None:
        """Have them again, unless they were never lent."""
        if not self.lent:
            return
        while self._lent_permits:
            await self._lent_permits[-1].acquire()
            self.permits.append(self._lent_permits.pop())
        await self.slot.reclaim()
        self.lent = False

    def release(self) -> None:
        """Give back all that is not lent; once is enough, and twice does no harm."""
        if self._released:
            return
        self._released = True
        self.slot.release()
        for permit in self.permits:
            permit.release()
