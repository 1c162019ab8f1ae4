"""Log lines of one run on their way to the store: gathered, numbered, and given away in chunks."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app import clock
from app.executors.base import LogLine
from app.models.columns import to_us
from app.models.rows import LogRow
from app.store import logs
from app.store.db import dumps
from app.store.units import Chunk

#: A chunk is given away when it has so many lines, or so many seconds after its first one.
CHUNK_LINES = 100
CHUNK_S = 0.2


@dataclass(slots=True)
class _Open:
    """Lines of one block attempt that are not yet on their way."""

    block_uuid: str | None
    block_run_id: int | None
    attempt: int | None
    lines: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True)
class RunLog:
    """Collects the lines of a run. `full` is called when a chunk should be fetched with :meth:`take`."""

    epoch: int
    next_pos: int
    full: Callable[[], None]
    _open: dict[tuple[int | None, int | None], _Open] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _closed: bool = False

    def add(
        self, block_uuid: str | None, block_run_id: int | None, attempt: int | None, line: LogLine
    ) -> None:
        """Take a line in, stamped now."""
        key = (block_run_id, attempt)
        if (chunk := self._open.get(key)) is None:
            chunk = self._open[key] = _Open(block_uuid, block_run_id, attempt)
        chunk.lines.append([to_us(clock.now()), line.stream, line.level, line.text])
        if len(chunk.lines) == CHUNK_LINES and not self._closed:  # once: until it is fetched, more may come
            self._give()
        elif self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(CHUNK_S, self._give)

    @property
    def pending(self) -> bool:
        """Whether any line waits to be taken."""
        return bool(self._open)

    def _give(self) -> None:
        self._stop_timer()
        self.full()

    def close(self) -> None:
        """Give nothing away any more: whoever took it is gone."""
        self._stop_timer()
        self._closed = True

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self, *, rows_too: bool = True) -> tuple[tuple[Chunk, ...], tuple[LogRow, ...]]:
        """Everything gathered, as chunks for the journal and, with `rows_too`, as rows for those who follow live."""
        self._stop_timer()
        chunks: list[Chunk] = []
        rows: list[LogRow] = []
        for part in self._open.values():
            text = dumps(part.lines)
            pos = self.next_pos
            self.next_pos += 1
            chunks.append(Chunk(pos=pos, block_run_id=part.block_run_id, attempt=part.attempt, lines=text))
            if rows_too:
                rows += logs.rows_of(pos, part.block_uuid, part.attempt, text)
        self._open.clear()
        return tuple(chunks), tuple(rows)


def first_pos(epoch: int, newest: int) -> int:
    """Where the numbering of an owner begins: each epoch has 2³² positions of its own.

    >>> first_pos(1, -1) == 2**32, first_pos(1, 2**32 + 6) == 2**32 + 7
    (True, True)
    """
    return max(epoch << 32, newest + 1)


def lines_of(text: str, level: str = "error") -> list[LogLine]:
    """A text of several lines as the engine's own log lines."""
    return [LogLine("system", level, line) for line in text.splitlines()]  # type: ignore[arg-type]
