"""A running run in memory: a cache of its rows that the runner keeps in step with what it writes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.executors.base import OutputRef
from app.models.columns import to_us
from app.models.pipeline import Block, BlockType, Pipeline, from_definition
from app.models.rows import BlockRow, RunRow
from app.models.states import BlockStatus, Outcome
from app.scheduler.progress import MAX_LOST
from app.scheduler.redaction import Redactor
from app.store.runs import Resumed

_UNCHARGED = frozenset({Outcome.LOST, Outcome.CANCELLED, Outcome.COMPLETED})


@dataclass(slots=True)
class BlockState:
    """One block run. `state` is its status as last submitted to the journal."""

    id: int
    block: Block
    state: BlockStatus
    attempt: int = 0
    #: attempts of its own, hooks left out
    tries: int = 0
    charged: int = 0
    lost: int = 0
    started_at: datetime | None = None
    wake_at: datetime | None = None
    #: of a sensor: when its present poke was due; None for the first of a try
    poke_at: datetime | None = None
    outputs: Sequence[OutputRef] = ()
    error: Mapping[str, Any] | None = None
    #: hooks that have ended, by the name of their attempt; and how often one was lost
    hooks: dict[str, Outcome] = field(default_factory=dict)
    hooks_lost: Counter[str] = field(default_factory=Counter)
    hook_open: bool = False
    #: how many children run in its stead, an item each; None for a block that runs itself
    children: int | None = None
    #: of a child: its own uuid, which item it is for, and other children that it waits for
    name: str = ""
    item_index: int | None = None
    after: tuple[str, ...] = ()
    #: its outputs are those of an earlier run
    carried: bool = False

    @property
    def uuid(self) -> str:
        """The uuid of the block run: the block's own, or a child's."""
        return self.name or self.block.uuid

    @property
    def turn(self) -> str:
        """Its try and, of a sensor, its poke: the same however often it is begun anew, by whatever node."""
        return f"{self.charged}" if self.poke_at is None else f"{self.charged}@{to_us(self.poke_at)}"

    @property
    def is_waiting_sensor(self) -> bool:
        """A sensor between two pokes: its attempt is open, nothing runs."""
        return (
            self.block.type is BlockType.SENSOR
            and self.state is BlockStatus.RUNNING
            and self.wake_at is not None
        )


@dataclass(slots=True)
class Family:
    """The children of a block that runs once an item, in the order of their items.

    `open` counts those that are not over, `failed` those that failed; both are kept as they move, since a look at
    all of them at each end would make many children slow.
    """

    template: BlockState
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    children: list[BlockState]
    open: int = 0
    failed: int = 0
    #: child -> those that wait for it by their item's `upstream_blocks`
    followers: dict[str, list[BlockState]] = field(default_factory=dict)


@dataclass(slots=True)
class RunState:
    """A run with its blocks, by uuid, in pipeline order; children of dynamic blocks are kept apart."""

    run: RunRow
    pipeline: Pipeline
    blocks: dict[str, BlockState]
    families: dict[str, Family] = field(default_factory=dict)
    children: dict[str, BlockState] = field(default_factory=dict)
    log_pos: int = -1
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    datetimes: Sequence[str] = ()
    redactor: Redactor = field(default_factory=Redactor)

    @property
    def statuses(self) -> dict[str, BlockStatus]:
        """Status by block uuid, without children. A block whose children are on their way counts as running."""
        if not self.families:
            return {uuid: block.state for uuid, block in self.blocks.items()}
        return {uuid: self.status_of(uuid) for uuid in self.blocks}

    def status_of(self, uuid: str) -> BlockStatus:
        """The status of one block, as in :attr:`statuses`."""
        state = self.blocks[uuid].state
        return BlockStatus.RUNNING if state is BlockStatus.QUEUED and uuid in self.families else state

    def block(self, uuid: str) -> BlockState:
        """A block run, be it a block's or a child's."""
        return self.blocks.get(uuid) or self.children[uuid]

    def everything(self) -> Iterator[BlockState]:
        """All block runs, children too; templates of planned blocks left out, which only stand for theirs."""
        yield from (block for uuid, block in self.blocks.items() if uuid not in self.families)
        yield from self.children.values()

    @property
    def failed_children(self) -> list[str]:
        """The children that failed."""
        return [
            child.uuid
            for family in self.families.values()
            if family.failed
            for child in family.children
            if child.state is BlockStatus.FAILED
        ]

    @property
    def allow_blocks_to_fail(self) -> bool:
        """The trigger's setting, frozen with the run."""
        return bool(self.run.options.get("allow_blocks_to_fail"))

    def inputs(self, block: Block) -> list[tuple[str, Sequence[OutputRef]]]:
        """What the upstream blocks left, in the order in which the block names them."""
        return [(uuid, self.blocks[uuid].outputs) for uuid in block.upstream]

    def artifact_dir(self, state: BlockState) -> str:
        """Where the present attempt keeps its outputs; never shared by two attempts or two owners."""
        return f"{self.run.id}/{state.uuid}/{self.run.epoch}.{state.attempt}"


def of_rows(resumed: Resumed) -> RunState:
    """The state of a run as the database has it. Families are for `fanout` to make of the rows of children."""
    pipeline = from_definition(resumed.definition)
    rows = resumed.blocks
    return RunState(
        run=resumed.run,
        pipeline=pipeline,
        blocks={
            row.block_uuid: _state(pipeline.by_uuid[row.block_uuid], row)
            for row in rows
            if row.parent_id is None
        },
        children=_children(pipeline, rows),
        log_pos=resumed.log_pos,
    )


def _children(pipeline: Pipeline, rows: Sequence[BlockRow]) -> dict[str, BlockState]:
    templates = {row.id: pipeline.by_uuid[row.block_uuid] for row in rows if row.children is not None}
    children = [row for row in rows if row.parent_id is not None]
    return {row.block_uuid: _state(templates[row.parent_id or 0], row) for row in children}


def _state(block: Block, row: BlockRow) -> BlockState:
    outcomes = [attempt.outcome for attempt in row.attempts if attempt.hook is None]
    hooks = [(a.hook, a.outcome) for a in row.attempts if a.hook is not None and a.outcome is not None]
    hooks_lost = Counter(name for name, outcome in hooks if outcome is Outcome.LOST)
    return BlockState(
        id=row.id,
        block=block,
        state=row.status,
        attempt=row.attempt,
        tries=len(outcomes),
        charged=sum(1 for o in outcomes if o is not None and o not in _UNCHARGED),
        lost=sum(1 for o in outcomes if o is Outcome.LOST),
        started_at=row.started_at,
        wake_at=row.wake_at,
        poke_at=_poke_at(row),
        outputs=row.outputs,
        error=row.error,
        hooks={
            name: outcome
            for name, outcome in hooks
            if outcome is not Outcome.LOST or hooks_lost[name] >= MAX_LOST
        },
        hooks_lost=hooks_lost,
        children=row.children,
        name=row.block_uuid if row.parent_id is not None else "",
        item_index=row.item_index,
        carried=row.carried_from is not None,
    )


def _poke_at(row: BlockRow) -> datetime | None:
    """When the present poke of a sensor was due: as it waits, or as an attempt that lost its node had waited."""
    if row.status is BlockStatus.RUNNING and row.wake_at is not None:
        return row.wake_at
    own = [attempt for attempt in row.attempts if attempt.hook is None]
    for attempt in reversed(own):
        if (found := (attempt.evidence or {}).get("poke_at")) is not None:
            return datetime.fromisoformat(found)
        if attempt.outcome not in (None, Outcome.LOST):
            break
    return None
