"""A running run in memory: a cache of its rows that the runner keeps in step with what it writes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.executors.base import OutputRef
from app.models.pipeline import Block, BlockType, Pipeline, from_definition
from app.models.rows import BlockRow, RunRow
from app.models.states import BlockStatus, Outcome
from app.store.runs import Resumed

_UNCHARGED = frozenset({Outcome.LOST, Outcome.CANCELLED, Outcome.COMPLETED})


@dataclass(slots=True)
class BlockState:
    """One block run. `state` is its status as last submitted to the journal."""

    id: int
    block: Block
    state: BlockStatus
    attempt: int = 0
    charged: int = 0
    lost: int = 0
    started_at: datetime | None = None
    wake_at: datetime | None = None
    outputs: Sequence[OutputRef] = ()

    @property
    def is_waiting_sensor(self) -> bool:
        """A sensor between two pokes: its attempt is open, nothing runs."""
        return (
            self.block.type is BlockType.SENSOR
            and self.state is BlockStatus.RUNNING
            and self.wake_at is not None
        )


@dataclass(slots=True)
class RunState:
    """A run with its blocks, by uuid, in pipeline order."""

    run: RunRow
    pipeline: Pipeline
    blocks: dict[str, BlockState]
    log_pos: int = -1
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    datetimes: Sequence[str] = ()

    @property
    def statuses(self) -> dict[str, BlockStatus]:
        """Status by block uuid."""
        return {uuid: block.state for uuid, block in self.blocks.items()}

    @property
    def allow_blocks_to_fail(self) -> bool:
        """The trigger's setting, frozen with the run."""
        return bool(self.run.options.get("allow_blocks_to_fail"))

    def inputs(self, block: Block) -> list[tuple[str, Sequence[OutputRef]]]:
        """What the upstream blocks left, in the order in which the block names them."""
        return [(uuid, self.blocks[uuid].outputs) for uuid in block.upstream]

    def artifact_dir(self, state: BlockState) -> str:
        """Where the present attempt keeps its outputs; never shared by two attempts or two owners."""
        return f"{self.run.id}/{state.block.uuid}/{self.run.epoch}.{state.attempt}"


def of_rows(resumed: Resumed) -> RunState:
    """The state of a run as the database has it."""
    pipeline = from_definition(resumed.definition)
    return RunState(
        run=resumed.run,
        pipeline=pipeline,
        blocks=dict(_states(pipeline, resumed.blocks)),
        log_pos=resumed.log_pos,
    )


def _states(pipeline: Pipeline, rows: Iterable[BlockRow]) -> Iterable[tuple[str, BlockState]]:
    for row in rows:
        outcomes = [attempt.outcome for attempt in row.attempts]
        yield (
            row.block_uuid,
            BlockState(
                id=row.id,
                block=pipeline.by_uuid[row.block_uuid],
                state=row.status,
                attempt=row.attempt,
                charged=sum(1 for o in outcomes if o is not None and o not in _UNCHARGED),
                lost=sum(1 for o in outcomes if o is Outcome.LOST),
                started_at=row.started_at,
                wake_at=row.wake_at,
                outputs=row.outputs,
            ),
        )
