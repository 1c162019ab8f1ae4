"""One attempt: what its other side is told, and the running of it within its time."""

import asyncio
from collections.abc import Callable

from app import failpoints
from app.executors.base import BlockCall, BlockResult, LogLine, OnAsk
from app.models.states import Outcome
from app.scheduler import families
from app.scheduler.runstate import BlockState, RunState
from app.scheduler.tools import Held, Tools


def call_of(tools: Tools, state: RunState, block: BlockState) -> BlockCall:
    """What the present attempt of a block is told."""
    alone = block.item_index is None
    return BlockCall(
        run_id=state.run.id,
        block_run_id=block.id,
        attempt=block.attempt,
        epoch=state.run.epoch,
        pipeline_uuid=state.pipeline.uuid,
        block=block.block,
        project=tools.project,
        artifact_dir=state.artifact_dir(block),
        artifacts=tools.artifacts,
        inputs=state.inputs(block.block) if alone else families.inputs(state, block),
        kwargs=state.kwargs,
        datetimes=state.datetimes,
        python=tools.python(),
        tries=block.tries,
        item=block.item_index,
    )


async def run_within(
    tools: Tools,
    group: asyncio.TaskGroup,
    held: Held,
    call: BlockCall,
    limit_s: float | None,
    *,
    what: str = "the block",
    on_line: Callable[[LogLine], None],
    on_ask: OnAsk,
) -> BlockResult:
    """Run an attempt to its end, whatever that is; killed when it takes longer than `limit_s` seconds.

    It does not begin on a node whose lease is over: one that stood still gets the answer to its last write with the
    first turn of its loop, perhaps before its lease's thread has had a turn.
    """
    if not tools.hooks.may_act():
        return BlockResult(Outcome.LOST)
    result = await _timed(group, held, call, limit_s, what=what, on_line=on_line, on_ask=on_ask)
    if failpoints.armed is not None:
        await failpoints.armed.reach("attempt.result_received")
    return result


async def _timed(
    group: asyncio.TaskGroup,
    held: Held,
    call: BlockCall,
    limit_s: float | None,
    *,
    what: str,
    on_line: Callable[[LogLine], None],
    on_ask: OnAsk,
) -> BlockResult:
    if limit_s is None:
        return await held.slot.run(call, on_line, on_ask)
    running = group.create_task(held.slot.run(call, on_line, on_ask))
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.shield(running)
    except TimeoutError:
        on_line(LogLine("system", "error", f"timeout: {what} ran longer than {limit_s:g} s"))
        await held.slot.kill(Outcome.TIMEOUT, f"timeout of {limit_s:g} s")
        return await running
