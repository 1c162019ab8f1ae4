"""What the journal carries: the transitions of runs that this node owns, as plain values.

A unit is everything that one step of one run changes; it is applied whole or not at all. "A is done" and "B has
started" travel together, so that a chain of blocks pays one commit a block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.models.states import BlockStatus, Outcome, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """An attempt is over and its block run moves to `status` (queued: there will be another attempt)."""

    block_run_id: int
    attempt: int
    outcome: Outcome
    status: BlockStatus
    reason: str | None = None
    outputs: str | None = None
    error: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    code_hash: str | None = None
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An attempt is about to run: on disk before user code is."""

    block_run_id: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """A block run that ends, or waits in `queued`, without an attempt of its own."""

    block_run_id: int
    status: BlockStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A running sensor that will be poked again at `wake_at`."""

    block_run_id: int
    wake_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Log lines, JSON text as in `block_log.lines`; `pos` grows within the run."""

    pos: int
    block_run_id: int | None
    attempt: int | None
    lines: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The end of the run."""

    status: RunStatus
    reason: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One step of one run."""

    run_id: int
    epoch: int
    finishes: tuple[Finish, ...] = ()
    settles: tuple[Settle, ...] = ()
    waits: tuple[Wait, ...] = ()
    starts: tuple[Start, ...] = ()
    close: Close | None = None
    chunks: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a unit that was written. `stop` says why its starts were refused, if they were."""

    stop: Literal["cancel", "deadline"] | None = None


class Mismatch(Exception):
    """A unit does not fit the rows it is about: a fault of the engine, never of the user."""
