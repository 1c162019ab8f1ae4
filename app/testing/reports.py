"""What a test looks at: plain frozen values, with every output opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One line that a block wrote; `stream` is stdout, stderr, log (its `logger`) or system (the engine's own)."""

    block_uuid: str
    stream: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed. `file` is relative to the project where it lies inside it."""

    type: str
    message: str
    file: str | None = None
    line: int | None = None
    traceback: str = field(default="", repr=False)

    def __str__(self) -> str:
        place = f" ({self.file}:{self.line})" if self.file and self.line else ""
        return f"{self.type}: {self.message}{place}"


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """One try of a block, or of a condition or callback of it (`hook`). Times are the virtual clock's, in UTC."""

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    error: Fault | None = None
    #: `condition:<uuid>` or `callback:<uuid>:<status>`; None for the block itself
    hook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """How one block, or one child of a dynamic block, ended."""

    uuid: str
    status: str
    reason: str | None = None
    #: what it returned, one each (Mage: a tuple or list is several outputs)
    outputs: tuple[Any, ...] = field(default=(), repr=False)
    #: what a block below it gets
    output: Any = field(default=None, repr=False)
    error: Fault | None = None
    attempts: tuple[AttemptReport, ...] = field(default=(), repr=False)
    logs: tuple[Line, ...] = field(default=(), repr=False)
    #: a sensor's answer, when the block was run alone
    met: bool | None = None

    @property
    def log(self) -> str:
        """All it wrote, one line a line."""
        return "\n".join(line.text for line in self.logs)

    @property
    def tries(self) -> int:
        """How often the block itself was tried, hooks left out."""
        return sum(1 for attempt in self.attempts if attempt.hook is None)

    @property
    def hooks(self) -> list[str]:
        """The conditions and callbacks that ran, in order."""
        return [attempt.hook for attempt in self.attempts if attempt.hook is not None]

    def check(self) -> "BlockReport":
        """The report itself when the block completed; AssertionError with its error and log otherwise."""
        if self.status != "completed":
            told = [f"block '{self.uuid}' is {self.status}", self.reason, str(self.error or ""), self.log]
            raise AssertionError("\n".join(part for part in told if part))
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended, or how it stood when the time of the test was up (`running`)."""

    pipeline_uuid: str
    status: str
    reason: str | None = None
    #: every block run by uuid, in pipeline order, each block's children behind it
    blocks: Mapping[str, BlockReport] = field(repr=False)
    variables: Mapping[str, Any] = field(default_factory=dict, repr=False)
    began: datetime
    #: virtual seconds from the start to the end
    took_s: float
    #: the runs that `trigger_pipeline` started, in order
    triggered: Sequence["RunReport"] = field(default=(), repr=False)

    @property
    def statuses(self) -> dict[str, str]:
        """Status by block uuid, children included."""
        return {uuid: block.status for uuid, block in self.blocks.items()}

    @property
    def log(self) -> str:
        """All that its blocks wrote."""
        return "\n".join(block.log for block in self.blocks.values() if block.logs)

    def __getitem__(self, uuid: str) -> BlockReport:
        try:
            return self.blocks[uuid]
        except KeyError:
            known = ", ".join(self.blocks)
            raise KeyError(f"the run has no block '{uuid}'; it has: {known}") from None

    def output(self, uuid: str) -> Any:
        """What a block below `uuid` gets from it."""
        return self[uuid].output

    def children(self, uuid: str) -> list[BlockReport]:
        """The children of a block that ran once an item, in the order of the items."""
        return [block for name, block in self.blocks.items() if name.startswith(f"{uuid}:")]

    def check(self) -> "RunReport":
        """The report itself when the run completed; AssertionError that says what did not otherwise."""
        if self.status != "completed":
            bad = [
                b
                for b in self.blocks.values()
                if b.status not in ("completed", "skipped", "condition_failed")
            ]
            told = [f"  {b.uuid}: {b.status} {b.error or b.reason or ''}".rstrip() for b in bad]
            raise AssertionError(
                "\n".join([f"run of '{self.pipeline_uuid}' is {self.status}: {self.reason}", *told])
            )
        return self
