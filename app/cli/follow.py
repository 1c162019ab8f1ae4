"""Following one run of the engine in this process: its events become what a view shows.

Log lines come with the events; what the bus had to drop is read from the database, so no line is lost.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, Protocol

from app import clock
from app.cli.plain import PlainView
from app.events import BlockEnded, BlockStarted, Event, LogWritten, RunEnded, Subscription
from app.models.rows import BlockRow, LogRow, RunRow
from app.models.states import RUN_TERMINAL
from app.scheduler.engine import Engine
from app.store import logs, runs

_PAGE: Final = 1000
#: A wake-up that got lost costs this long, no more.
_LOOK_AGAIN_S: Final = 2.0
#: the blocks of a run in pipeline order, each with its upstream blocks
Graph = Mapping[str, Sequence[str]]


class View(Protocol):
    """Shows a run."""

    @property
    def tick_s(self) -> float | None:
        """Seconds between two calls of `tick`; None for a view in which nothing moves by itself."""
        ...

    def begin(self, run: RunRow, blocks: Sequence[BlockRow], graph: Graph) -> None:
        """The run exists, with these blocks; some may be carried over or skipped already."""
        ...

    def log(self, line: LogRow) -> None:
        """A line was written."""
        ...

    def started(self, event: BlockStarted) -> None:
        """A block's attempt started."""
        ...

    def ended(self, event: BlockEnded) -> None:
        """A block's attempt ended."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def end(self, run: RunRow, blocks: Sequence[BlockRow]) -> None:
        """The run is over; nothing is shown afterwards."""
        ...


def view_for_terminal(now: Callable[[], datetime] = clock.now) -> View:
    """A live tree on a terminal, elsewhere plain lines with times by `now`."""
    if sys.stdout.isatty():
        from app.cli.tree import TreeView

        return TreeView()
    return PlainView(now)


class Follower:
    """Feeds a view."""

    def __init__(self, engine: Engine, view: View) -> None:
        self._engine = engine
        self._view = view
        self._subscription: Subscription | None = None
        self._last: tuple[int, int] = (-1, -1)
        self._over = asyncio.Event()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect events: open it before the launch, so that none is missed."""
        with self._engine.bus.subscribe() as subscription:
            self._subscription = subscription
            yield

    async def follow(self, run: RunRow) -> None:
        """Show the run until it is over and all it wrote has been shown."""
        rows = await self._engine.db.read(runs.blocks, run.id, attempts=False)
        self._view.begin(run, rows, self._graph(run, rows))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._events(run.id)), group.create_task(self._ticks())]
            while not self._over.is_set():
                await self._look(run.id)
            for task in tasks:
                task.cancel()
        await self._catch_up(run.id)
        ended = await self._engine.db.read(runs.get, run.id)
        assert ended is not None
        self._view.end(ended, await self._engine.db.read(runs.blocks, run.id))

    def _graph(self, run: RunRow, rows: Sequence[BlockRow]) -> Graph:
        known = {row.block_uuid for row in rows}
        upstream = {b.uuid: b.upstream for b in self._engine.catalogue.get(run.pipeline_uuid).blocks}
        return {
            row.block_uuid: tuple(name for name in upstream.get(row.block_uuid, ()) if name in known)
            for row in rows
        }

    async def _look(self, run_id: int) -> None:
        """Wait for the end; look into the database now and then, should the event have been dropped."""
        try:
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await self._over.wait()
        except TimeoutError:
            run = await self._engine.db.read(runs.get, run_id)
            if run is None or run.status in RUN_TERMINAL:
                self._over.set()

    async def _events(self, run_id: int) -> None:
        assert self._subscription is not None
        async for event in self._subscription:
            if event.run_id == run_id:
                self._show(event)

    def _show(self, event: Event) -> None:
        match event:
            case LogWritten():
                for line in event.lines:
                    self._log(line)
            case BlockStarted():
                self._view.started(event)
            case BlockEnded():
                self._view.ended(event)
            case RunEnded():
                self._over.set()

    async def _ticks(self) -> None:
        while self._view.tick_s is not None:
            await asyncio.sleep(self._view.tick_s)
            self._view.tick()

    async def _catch_up(self, run_id: int) -> None:
        while True:
            after = logs.line_id(*self._last) if self._last[0] >= 0 else None
            lines = await self._engine.db.read(logs.page, run_id, after=after, limit=_PAGE)
            for line in lines:
                self._log(line)
            if len(lines) < _PAGE:
                return

    def _log(self, line: LogRow) -> None:
        position = logs.parse_id(line.id)
        if position > self._last:  # the same line may come by event and by reading
            self._last = position
            self._view.log(line)
