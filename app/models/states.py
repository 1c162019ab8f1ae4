"""Statuses and the only legal moves between them.

The tables below are the truth: the store's statements take their source states from them, the CHECKs and
`docs/states.md` are made from them. Terminal rows never change; a retry is a new run.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class RunStatus(StrEnum):
    """Status of a pipeline run."""

    INITIAL = "initial"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BlockStatus(StrEnum):
    """Status of a block run."""

    INITIAL = "initial"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UPSTREAM_FAILED = "upstream_failed"
    CONDITION_FAILED = "condition_failed"
    SKIPPED = "skipped"


class Outcome(StrEnum):
    """How one attempt of a block ended. LOST is nobody's fault in user code: the node or worker went away."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    LOST = "lost"


class NodeState(StrEnum):
    """State of a service process in the `node` table."""

    LIVE = "live"
    DRAINING = "draining"
    STOPPED = "stopped"
    FENCED = "fenced"


class Cause(StrEnum):
    """Why a run exists."""

    TICK = "tick"
    API = "api"
    EVENT = "event"
    BACKFILL = "backfill"
    RETRY = "retry"
    PIPELINE = "pipeline"
    CLI = "cli"


class SlotOutcome(StrEnum):
    """What became of one due slot of a trigger."""

    RUN = "run"
    SKIPPED = "skipped"
    MISSED = "missed"


class ScheduleType(StrEnum):
    """Kind of a trigger."""

    TIME = "time"
    EVENT = "event"
    API = "api"


class ScheduleStatus(StrEnum):
    """Whether a trigger fires."""

    ACTIVE = "active"
    INACTIVE = "inactive"


R, B, N = RunStatus, BlockStatus, NodeState

RUN_TRANSITIONS: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    R.INITIAL: frozenset({R.RUNNING, R.CANCELLED, R.FAILED}),
    R.RUNNING: frozenset({R.COMPLETED, R.FAILED, R.CANCELLED}),
    R.COMPLETED: frozenset(),
    R.FAILED: frozenset(),
    R.CANCELLED: frozenset(),
}

BLOCK_TRANSITIONS: Final[Mapping[BlockStatus, frozenset[BlockStatus]]] = {
    # initial -> running directly: a block whose slot is free at once is never queued in between.
    B.INITIAL: frozenset(
        {B.QUEUED, B.RUNNING, B.UPSTREAM_FAILED, B.CONDITION_FAILED, B.SKIPPED, B.CANCELLED}
    ),
    # queued -> completed directly: a block that ran once an item, when the last of its children has ended.
    # and to the other ends, when that is what became of them.
    B.QUEUED: frozenset(
        {B.RUNNING, B.COMPLETED, B.CANCELLED, B.FAILED, B.UPSTREAM_FAILED, B.CONDITION_FAILED}
    ),
    B.RUNNING: frozenset({B.COMPLETED, B.FAILED, B.CANCELLED, B.QUEUED}),  # queued: retry, takeover
    B.COMPLETED: frozenset(),
    B.FAILED: frozenset(),
    B.CANCELLED: frozenset(),
    B.UPSTREAM_FAILED: frozenset(),
    B.CONDITION_FAILED: frozenset(),
    B.SKIPPED: frozenset(),
}

NODE_TRANSITIONS: Final[Mapping[NodeState, frozenset[NodeState]]] = {
    N.LIVE: frozenset({N.DRAINING, N.STOPPED, N.FENCED}),
    N.DRAINING: frozenset({N.STOPPED, N.FENCED}),
    N.STOPPED: frozenset(),
    N.FENCED: frozenset(),
}

RUN_TERMINAL: Final = frozenset(s for s, after in RUN_TRANSITIONS.items() if not after)
BLOCK_TERMINAL: Final = frozenset(s for s, after in BLOCK_TRANSITIONS.items() if not after)
#: What lets a downstream block go on.
BLOCK_SATISFIED: Final = frozenset({B.COMPLETED, B.SKIPPED})

S = TypeVar("S", RunStatus, BlockStatus, NodeState)


def sources(table: Mapping[S, frozenset[S]], target: S) -> tuple[S, ...]:
    """The states from which `target` may be reached, in the order of the table.

    >>> [str(s) for s in sources(RUN_TRANSITIONS, RunStatus.CANCELLED)]
    ['initial', 'running']
    """
    return tuple(state for state, after in table.items() if target in after)


def mermaid(title: str, table: Mapping[S, frozenset[S]]) -> str:
    """The table as a Mermaid state diagram; `docs/states.md` is made of these."""
    lines: list[str] = [f"### {title}", "", "```mermaid", "stateDiagram-v2"]
    first = next(iter(table))
    lines.append(f"    [*] --> {first}")
    for state, after in table.items():
        lines += [f"    {state} --> {target}" for target in sorted(after)]
        if not after:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```", ""])
