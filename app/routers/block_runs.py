"""Block runs: those of a run with the children of dynamic blocks, one with its attempts, its output and its log."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from app.auth import Access, needs
from app.errors import NotFound
from app.models.schemas import BlockRun, LogLine, Output, Outputs
from app.models.states import BlockStatus
from app.models.wire import Int64, Page
from app.routers import cursors, problems
from app.routers.asks import BlockRunId, Cursor, EngineDep, Limit, RunId
from app.routers.door import Door
from app.routers.runs import Lines, log_page, require_run
from app.store import runs

router = APIRouter(route_class=Door, tags=["block runs"])

_OUTPUT_FIELDS: Final = ("kind", "type", "size", "value", "count")
Statuses = Annotated[list[BlockStatus] | None, Query(max_length=10, description="repeat for several")]
Parent = Annotated[Int64 | None, Query(description="the children of this block run; else those of blocks")]


@router.get("/pipeline_runs/{run_id}/block_runs", responses=problems.declare(404))
@needs(Access.VIEWER)
async def list_block_runs(
    run_id: RunId,
    engine: EngineDep,
    parent_id: Parent = None,
    status: Statuses = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[BlockRun]:
    """The block runs of a run in pipeline order, or the children of one of them in the order of their items."""
    await require_run(engine, run_id)
    position = cursors.unwrap_id("block_run", cursor)
    found = await engine.db.read(
        runs.block_page, run_id, parent_id=parent_id, status=status, limit=limit + 1, offset=position or 0
    )
    more = cursors.wrap("block_run", (position or 0) + limit) if len(found) > limit else None
    return Page(items=[BlockRun.model_validate(block) for block in found[:limit]], next_cursor=more)


@router.get("/block_runs/{block_run_id}", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_block_run(block_run_id: BlockRunId, engine: EngineDep) -> BlockRun:
    """One block run with its attempts."""
    found = await engine.db.read(runs.block, block_run_id)
    if found is None:
        raise NotFound(f"No block run has the id {block_run_id}.")
    return BlockRun.model_validate(found)


@router.get("/block_runs/{block_run_id}/output", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_output(block_run_id: BlockRunId, engine: EngineDep) -> Outputs:
    """What a block left: plain values as they are, data frames by their schema and first rows."""
    found = await engine.db.read(runs.block, block_run_id)
    if found is None:
        raise NotFound(f"No block run has the id {block_run_id}.")
    return Outputs(
        block_run_id=found.id,
        block_uuid=found.block_uuid,
        status=found.status,
        outputs=[_output(index, ref) for index, ref in enumerate(found.outputs)],
    )


def _output(index: int, ref: Mapping[str, Any]) -> Output:
    preview = ref if "column_names" in ref else None
    known = {name: ref.get(name) for name in _OUTPUT_FIELDS}
    return Output.model_validate({"index": index, "preview": preview, **known})


@router.get("/block_runs/{block_run_id}/logs", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_block_logs(
    block_run_id: BlockRunId, engine: EngineDep, limit: Lines = 200, cursor: Cursor = None
) -> Page[LogLine]:
    """The log of one block, oldest line first, as the run's log has it."""
    found = await engine.db.read(runs.block, block_run_id)
    if found is None:
        raise NotFound(f"No block run has the id {block_run_id}.")
    return await log_page(engine, found.pipeline_run_id, found.block_uuid, limit, cursor)
