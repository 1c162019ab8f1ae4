"""Reports made of what a test's world has on record, with every output opened before its files go."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from app import clock
from app.executors.base import OutputRef
from app.executors.child import outputs
from app.models.states import BlockStatus
from app.scheduler.runstate import BlockState, RunState
from app.testing.record import fault_of
from app.testing.reports import BlockReport, Line, RunReport
from app.testing.world import World


def run_report(world: World, run_id: int) -> RunReport:
    """What became of a run and of those that it started."""
    going = world.runs[run_id]
    run = going.state.run
    close = world.record.closed.get(run_id)
    return RunReport(
        pipeline_uuid=run.pipeline_uuid,
        status=str(world.status(run_id)),
        reason=close.reason if close else None,
        blocks={block.uuid: _block_report(world, going.state, block) for block in _in_order(going.state)},
        variables=dict(run.variables),
        began=going.began,
        took_s=((going.ended or clock.now()) - going.began) / timedelta(seconds=1),
        triggered=[
            run_report(world, number) for number, other in world.runs.items() if other.parent == run_id
        ],
    )


def _in_order(state: RunState) -> Iterator[BlockState]:
    """Block runs in pipeline order, the children of each behind it."""
    for uuid, block in state.blocks.items():
        yield block
        if uuid in state.families:
            yield from state.families[uuid].children


def _block_report(world: World, state: RunState, block: BlockState) -> BlockReport:
    record = world.record.of(block.id)
    status = state.status_of(block.uuid) if block.uuid in state.blocks else block.state
    done = status is BlockStatus.COMPLETED
    values, value = opened(world, block.outputs, block.uuid) if done else ((), None)
    return BlockReport(
        uuid=block.uuid,
        status=str(status),
        reason=record.reason,
        outputs=values,
        output=value,
        error=fault_of(record.error) if status is BlockStatus.FAILED else None,
        attempts=tuple(record.attempts),
        logs=tuple(Line(block.uuid, *line) for line in record.lines),
    )


def opened(world: World, refs: Sequence[OutputRef], uuid: str) -> tuple[tuple[Any, ...], Any]:
    """What a block left, one each, and what a block below it gets."""
    root = str(world.tools.artifacts)
    value = outputs.open_input([dict(ref) for ref in refs], root, uuid)
    if len(refs) == 1 and not refs[0].get("spread"):
        return (value,), value
    return tuple(value or ()), value
