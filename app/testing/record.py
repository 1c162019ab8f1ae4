"""What the journal would write, kept in memory: attempts, reasons and log lines of the runs of a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app import clock
from app.store.db import loads
from app.store.journal import Answer
from app.store.units import Chunk, Close, Finish, Settle, Unit, Verdict
from app.testing.reports import AttemptReport, Fault


@dataclass(slots=True)
class BlockRecord:
    """What is on record of one block run."""

    attempts: list[AttemptReport] = field(default_factory=list)
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    reason: str | None = None
    error: Mapping[str, Any] | None = None


class Record:
    """The journal's backend in a test."""

    def __init__(self) -> None:
        self.blocks: dict[int, BlockRecord] = {}
        self.closed: dict[int, Close] = {}

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to disconnect from."""

    async def flush(self, units: Sequence[Unit]) -> list[Answer]:
        """Take the units in order."""
        for unit in units:
            self._take(unit)
        return [Verdict() for _ in units]

    def of(self, block_run_id: int) -> BlockRecord:
        """The record of a block run."""
        return self.blocks.setdefault(block_run_id, BlockRecord())

    def _take(self, unit: Unit) -> None:
        for finish in unit.finishes:
            self._finish(finish)
        for settle in unit.settles:
            self._settle(settle)
        for start in unit.starts:
            attempt = AttemptReport(start.attempt, clock.now(), hook=start.hook)
            self.of(start.block_run_id).attempts.append(attempt)
        for chunk in unit.chunks:
            self._log(chunk)
        if unit.close is not None:
            self.closed[unit.run_id] = unit.close

    def _finish(self, finish: Finish) -> None:
        block = self.of(finish.block_run_id)
        ended = {"ended_at": clock.now(), "outcome": str(finish.outcome), "error": fault_of(finish.error)}
        block.attempts = [
            replace(a, **ended) if a.number == finish.attempt else a  # type: ignore[arg-type]
            for a in block.attempts
        ]
        if not finish.hook:
            block.reason, block.error = finish.reason, finish.error

    def _settle(self, settle: Settle) -> None:
        self.of(settle.block_run_id).reason = settle.reason

    def _log(self, chunk: Chunk) -> None:
        if chunk.block_run_id is not None:
            lines = [(stream, level, text) for _at, stream, level, text in loads(chunk.lines)]
            self.of(chunk.block_run_id).lines += lines


def fault_of(error: Mapping[str, Any] | None) -> Fault | None:
    """An error of the engine's as a test sees it."""
    return Fault(**error) if error else None
