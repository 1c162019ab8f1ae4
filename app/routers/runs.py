"""Pipeline runs and their block runs: list, look, read the log, cancel."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from app.auth import Access, needs
from app.errors import NotFound, RunNotFound
from app.models.rows import RunRow
from app.models.schemas import BlockRun, Int64, LogLine, Nothing, Page, PipelineRun, parse_int64
from app.models.states import RUN_TERMINAL, Cause, RunStatus
from app.routers import cursors, problems
from app.routers.asks import BlockRunId, Cursor, EngineDep, Limit, Prefer, RunId, wait_of
from app.routers.door import Door
from app.scheduler.engine import Engine
from app.store import logs, runs

router = APIRouter(route_class=Door, tags=["pipeline runs"])

#: What a cancel waits for the end by default: long enough for a block that takes its signal.
_CANCEL_S = 1.0

Names = Annotated[list[str] | None, Query(max_length=50, description="repeat for several")]
Statuses = Annotated[list[RunStatus] | None, Query(max_length=10, description="repeat for several")]
Ids = Annotated[list[Int64] | None, Query(max_length=50, description="repeat for several")]
Lines = Annotated[int, Query(ge=1, le=1000, description="lines on a page"), BeforeValidator(parse_int64)]
Causes = Annotated[list[Cause] | None, Query(max_length=10, description="repeat for several")]


@router.get("/pipeline_runs")
@needs(Access.VIEWER)
async def list_runs(
    engine: EngineDep,
    pipeline_uuid: Names = None,
    status: Statuses = None,
    pipeline_schedule_id: Ids = None,
    cause: Causes = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[PipelineRun]:
    """Runs that pass every filter, newest first, without their block runs."""
    found = await engine.db.read(
        runs.page,
        pipeline_uuid=pipeline_uuid,
        status=status,
        schedule_id=pipeline_schedule_id,
        cause=cause,
        limit=limit + 1,
        before_id=cursors.unwrap_id("run", cursor),
    )
    last = cursors.wrap("run", found[limit - 1].id) if len(found) > limit else None
    return Page(items=[PipelineRun.model_validate(run) for run in found[:limit]], next_cursor=last)


@router.get("/pipeline_runs/{run_id}", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_run(run_id: RunId, engine: EngineDep) -> PipelineRun:
    """One run with its block runs and their attempts."""
    return await run_with_blocks(engine, run_id)


@router.post("/pipeline_runs/{run_id}/cancel", responses=problems.declare(404))
@needs(Access.OPERATOR)
async def cancel_run(
    run_id: RunId, engine: EngineDep, body: Nothing | None = None, prefer: Prefer = None
) -> PipelineRun:
    """End a run now; one that is over is returned unchanged.

    Its processes are stopped. The answer waits a moment for that, or as long as `Prefer: wait=N` says: a block
    that ignores its signal has a grace, and until then the run is still `running`.
    """
    wait_s = wait_of(prefer)
    await engine.cancel(run_id)
    await engine.wait(run_id, _CANCEL_S if wait_s is None else wait_s)
    return await run_with_blocks(engine, run_id)


@router.get("/pipeline_runs/{run_id}/logs", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_logs(
    run_id: RunId,
    engine: EngineDep,
    block_uuid: Annotated[str | None, Query(max_length=255)] = None,
    limit: Lines = 200,
    cursor: Cursor = None,
) -> Page[LogLine]:
    """The log, oldest line first. `next_cursor` is null only when the run is over and all of it was given."""
    after = cursors.unwrap("log", cursor) if cursor else ""
    run = await _run(engine, run_id)  # before the lines: what a run that is over has written is complete
    lines = await engine.db.read(logs.page, run_id, after=after or None, limit=limit, block_uuid=block_uuid)
    more = len(lines) == limit or run.status not in RUN_TERMINAL
    position = lines[-1].id if lines else after
    return Page(
        items=[LogLine.model_validate(line) for line in lines],
        next_cursor=cursors.wrap("log", position) if more else None,
    )


@router.get("/block_runs/{block_run_id}", responses=problems.declare(404), tags=["block runs"])
@needs(Access.VIEWER)
async def get_block_run(block_run_id: BlockRunId, engine: EngineDep) -> BlockRun:
    """One block run with its attempts."""
    found = await engine.db.read(runs.block, block_run_id)
    if found is None:
        raise NotFound(f"No block run has the id {block_run_id}.")
    return BlockRun.model_validate(found)


async def run_with_blocks(engine: Engine, run_id: int) -> PipelineRun:
    """A run as it now stands, with its block runs. Raises RunNotFound."""
    run = await _run(engine, run_id)
    blocks = await engine.db.read(runs.blocks, run_id)
    return PipelineRun.model_validate(run).model_copy(
        update={"block_runs": [BlockRun.model_validate(block) for block in blocks]}
    )


async def _run(engine: Engine, run_id: int) -> RunRow:
    run = await engine.db.read(runs.get, run_id)
    if run is None:
        raise RunNotFound(f"No pipeline run has the id {run_id}.")
    return run
