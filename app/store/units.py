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
    """An attempt is over and its block run moves to `status` (queued: there will be another attempt).

    The end of a `hook` leaves the block run as it is: `status`, `outputs`, `metrics` and `wake_at` say nothing then.
    """

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
    hook: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An attempt is about to run: on disk before user code is.

    With `hook` (`condition:<uuid>`, `callback:<uuid>`) it is not the block's own: the block run only counts it, and
    it starts also in a run that was asked to stop.
    """

    block_run_id: int
    attempt: int
    hook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A block run that is to be made below `parent_id`, for the item `item_index`."""

    id: int
    parent_id: int
    block_uuid: str
    item_index: int
    position: int
    max_attempts: int
    #: the child of an earlier run whose outputs it takes over; it is completed then
    carried_from: int | None = None
    outputs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A block that runs once an item: it waits in `queued` for its `children`, which the same unit makes."""

    block_run_id: int
    children: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """A block run that ends, or waits in `queued`, without an attempt of its own; a planned one with its `outputs`."""

    block_run_id: int
    status: BlockStatus
    reason: str | None = None
    outputs: str | None = None


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
    plans: tuple[Plan, ...] = ()
    children: tuple[Child, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a unit that was written. `stop` says why its starts were refused, if they were."""

    stop: Literal["cancel", "deadline"] | None = None


class Mismatch(Exception):
    """A unit does not fit the rows it is about: a fault of the engine, never of the user."""
