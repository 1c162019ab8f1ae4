"""The small protocol between the engine and whatever runs a block."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from app.models.pipeline import Block
from app.models.states import Outcome

#: One output of a block, JSON-serialisable: `{"kind": "json", "value": …}` or
#: `{"kind": "parquet" | "pickle", "path": "<relative to the artifact root>", "size": bytes, "type": …}`.
OutputRef = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HookCall:
    """That an attempt runs a condition or callback of the block instead of the block itself.

    A condition is called with the block's own inputs, a callback with what the block left. `error` is the block's.
    """

    kind: Literal["condition", "callback"]
    uuid: str
    #: relative to the project folder
    file: str
    status: Literal["success", "failure", "cancelled"] | None = None
    error: Mapping[str, Any] | None = None
    #: the run as blocks see it, JSON-safe
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlockCall:
    """One attempt of one block: everything the other side needs to know."""

    run_id: int
    block_run_id: int
    attempt: int
    epoch: int
    pipeline_uuid: str
    block: Block
    project: Path
    #: where this attempt writes its artifacts, relative to `artifacts`: `<run>/<block>/<epoch>.<attempt>`
    artifact_dir: str
    #: the artifact root
    artifacts: Path
    #: per upstream block, in the order of `block.upstream`, the outputs it left
    inputs: Sequence[tuple[str, Sequence[OutputRef]]]
    #: variables as the block sees them in **kwargs, already JSON-safe; names in `datetimes` become aware datetimes
    kwargs: Mapping[str, Any]
    datetimes: Sequence[str] = ()
    #: interpreter for this block; None is the service's own
    python: str | None = None
    #: which try of the block's own this is, from 1: what `kwargs["retry"]` tells
    tries: int = 1
    #: the item of a dynamic block that this attempt is for
    item: int | None = None
    hook: HookCall | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a block (or the engine on its behalf) wrote."""

    stream: Literal["stdout", "stderr", "log", "system"]
    level: Literal["debug", "info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class BlockError:
    """Why an attempt failed. `file` is relative to the project where it lies inside it."""

    type: str
    message: str
    file: str | None = None
    line: int | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class BlockResult:
    """How an attempt ended. `value_false` is a sensor whose condition is not met yet."""

    outcome: Outcome
    outputs: Sequence[OutputRef] = ()
    error: BlockError | None = None
    #: proof of a kill or crash: signal, exit code, asked_at, term_at, kill_at, survivors …
    evidence: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    code_hash: str | None = None
    value_false: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that a block puts to the service while it runs (`trigger_pipeline`, `check_status` …).

    The block waits for the answer; `answer` may be called once, at any time, also after the attempt has ended.
    `{"value": …}` is what the block gets, `{"error": {"type", "message"}}` is raised in it.
    """

    name: str
    payload: Mapping[str, Any]
    answer: Callable[[Mapping[str, Any]], None]


OnAsk = Callable[[Ask], None]


class Slot(Protocol):
    """A place where one block at a time may run; held along a chain of blocks."""

    async def run(
        self, call: BlockCall, on_line: Callable[[LogLine], None], on_ask: OnAsk | None = None
    ) -> BlockResult:
        """Run one attempt. Never raises for what user code does; every ending is a BlockResult.

        Every line the block wrote has been handed to `on_line` before this returns. `on_ask` gets the block's
        questions; without it they are refused.
        """
        ...

    def lend(self) -> None:
        """Let others use the place while the block in it only waits for an answer."""
        ...

    async def reclaim(self) -> None:
        """Wait for a place again after :meth:`lend`; does nothing when it was not lent."""
        ...

    async def kill(self, outcome: Outcome, reason: str) -> None:
        """Stop the attempt in flight: TERM, grace, KILL of its whole tree. `run` then returns `outcome`.

        Returns when nothing of it is alive. Does nothing when no attempt is in flight.
        """
        ...

    def release(self) -> None:
        """Give the place back, unless it is lent. The slot must not be used afterwards."""
        ...


class Executor(Protocol):
    """Gives out slots."""

    async def start(self) -> None:
        """Make ready; the first slots are warm when this returns."""
        ...

    async def acquire(self, python: str | None) -> Slot:
        """Wait for a free slot. Cancellation-safe: a cancelled waiter takes no slot with it."""
        ...

    def acquire_now(self, python: str | None) -> Slot | None:
        """A free slot that is ready this instant, or None."""
        ...

    def cut(self) -> None:
        """End all user code this instant, without grace and for good; may be called from any thread."""
        ...

    async def stop(self) -> None:
        """Kill whatever still runs and end every process."""
        ...
