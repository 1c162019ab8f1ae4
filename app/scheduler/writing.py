"""What one run tells: units to the journal with the log lines gathered so far, and events to whoever listens."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from app.events import Event, LogWritten, RunEnded
from app.executors.base import BlockResult, LogLine
from app.scheduler.loglines import RunLog, first_pos, lines_of
from app.scheduler.runstate import BlockState, RunState
from app.scheduler.tools import Tools
from app.store.units import Unit, Verdict

log = logging.getLogger(__name__)


class Writing:
    """The pen of one run. `closed` is called when the run's end is on disk."""

    def __init__(
        self, tools: Tools, state: RunState, group: asyncio.TaskGroup, closed: Callable[[], None]
    ) -> None:
        self._tools, self._state, self._group, self._closed = tools, state, group, closed
        self._id, self._epoch = state.run.id, state.run.epoch
        self._log = RunLog(self._epoch, first_pos(self._epoch, state.log_pos), self.flush)
        self._over = False

    def line(self, block: BlockState, line: LogLine) -> None:
        """Put a line into a block's log."""
        self._log.add(block.uuid, block.id, block.attempt, self._state.redactor.line(line))

    def note(self, line: LogLine) -> None:
        """Put a line into the run's own log."""
        self._log.add(None, None, None, line)

    def explain(self, block: BlockState, result: BlockResult) -> None:
        """Put the reason of a failure into the block's log, where people look for it."""
        if result.error is not None:
            text = result.error.traceback or f"{result.error.type}: {result.error.message}"
            for line in lines_of(text):
                self.line(block, line)

    async def submit(self, unit: Unit, *events: Event) -> Verdict:
        """Write a unit together with the log lines gathered so far; then tell whoever listens."""
        chunks, rows = self._log.take(rows_too=self._tools.bus.listened(self._id))
        verdict = await self._tools.journal.submit(replace(unit, chunks=chunks) if chunks else unit)
        if chunks:  # also without the rows: who has begun to listen meanwhile reads them
            self.publish(LogWritten(run_id=self._id, lines=rows))
        self.publish(*events)
        if unit.close is not None:
            self._closed()
            reason = f" ({unit.close.reason})" if unit.close.reason else ""
            pipeline = self._state.run.pipeline_uuid
            log.info("run %d of %s: %s%s", self._id, pipeline, unit.close.status, reason)
            self.publish(RunEnded(run_id=self._id, status=unit.close.status, reason=unit.close.reason))
        return verdict

    def flush(self) -> None:
        """Write the lines gathered so far, if there are any."""
        if not self._over and self._log.pending:
            self._group.create_task(self._write_log())

    async def _write_log(self) -> None:
        if self._log.pending:  # else another unit has taken the lines along
            await self.submit(Unit(run_id=self._id, epoch=self._epoch))

    def leave(self) -> None:
        """Write nothing more by itself: somebody else goes on with the run."""
        self._over = True

    def close(self) -> None:
        """Give nothing away any more."""
        self._log.close()

    def publish(self, *events: Event) -> None:
        """Tell whoever listens."""
        self._tools.bus.publish(*events)
