"""A run as plain timestamped lines: for pipes, files and CI."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from app import clock
from app.events import BlockEnded, BlockStarted
from app.models.rows import BlockRow, LogRow, RunRow
from app.models.states import BLOCK_TERMINAL, BlockStatus


class PlainView:
    """One line an event, one line a log line."""

    tick_s: Final = None

    def __init__(self, now: Callable[[], datetime] = clock.now) -> None:
        """`now` gives the time that events are shown with."""
        self._now = now

    def begin(self, run: RunRow, blocks: Sequence[BlockRow], graph: Mapping[str, Sequence[str]]) -> None:
        """Name the run."""
        running = sum(
            row.attempt > 0 or row.status not in BLOCK_TERMINAL for row in blocks
        )  # less the carried
        count = f"{running} block" + ("" if running == 1 else "s")
        self._line(f"{run.pipeline_uuid}: run {run.id}, {count}")

    def log(self, line: LogRow) -> None:
        """Show a line as it was written, with its block."""
        stamp = f"{line.at.astimezone():%H:%M:%S}"
        where = f"{line.block_uuid} | " if line.block_uuid else ""
        _write(f"{stamp} {where}{line.text}")

    def started(self, event: BlockStarted) -> None:
        """A block's attempt started."""
        again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        self._line(f"{event.block_uuid}: started{again}")

    def ended(self, event: BlockEnded) -> None:
        """A block's attempt ended."""
        took = f" in {span(event.duration_s)}" if event.duration_s is not None else ""
        if event.status is BlockStatus.QUEUED:
            self._line(f"{event.block_uuid}: {event.outcome}{took}, tries again{_reason(event)}")
        else:
            self._line(f"{event.block_uuid}: {event.status}{took}{_reason(event)}")

    def tick(self) -> None:
        """Nothing moves here."""

    def end(self, run: RunRow, blocks: Sequence[BlockRow]) -> None:
        """How it ended, and how long it took."""
        began = run.started_at or run.created_at
        took = f" in {span((run.completed_at - began).total_seconds())}" if run.completed_at else ""
        reason = f" ({run.status_reason})" if run.status_reason else ""
        self._line(f"{run.pipeline_uuid}: {run.status}{took}{reason}")

    def _line(self, text: str) -> None:
        _write(f"{self._now().astimezone():%H:%M:%S} {text}")


def _reason(event: BlockEnded) -> str:
    if not event.error:
        return ""
    return f": {event.error.get('type')}: {event.error.get('message')}"


def _write(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left, as in `| head`; the run goes on to its end and exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def span(seconds: float) -> str:
    """Seconds for people.

    >>> span(0.0042), span(3.21), span(75)
    ('4 ms', '3.2 s', '0:01:15')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=int(seconds)))
