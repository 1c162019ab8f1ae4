"""Pipeline runs and their block runs: list, look, read the log, explain, cancel."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import BeforeValidator
from starlette.requests import Request
from starlette.responses import StreamingResponse

from app import clock
from app.auth import Access, needs
from app.errors import RunNotFound, StoreUnavailable
from app.models.explain_schemas import RunExplanation
from app.models.rows import LogRow, RunRow
from app.models.schemas import BlockRun, LogLine, Nothing, PipelineRun, RunEvent, RunRetry
from app.models.states import RUN_TERMINAL, Cause, RunStatus
from app.models.wire import Int64, Page, Time, parse_bool, parse_int64
from app.routers import cursors, problems, streams
from app.routers.asks import Cursor, EngineDep, Limit, Prefer, RunId, wait_of
from app.routers.door import Door
from app.routers.repeats import KeyDep
from app.scheduler import explaining
from app.scheduler.engine import Engine
from app.store import events, logs, runs

router = APIRouter(route_class=Door, tags=["pipeline runs"])

#: What a cancel waits for the end by default: long enough for a block that takes its signal.
_CANCEL_S = 1.0

Names = Annotated[list[str] | None, Query(max_length=50, description="repeat for several")]
Statuses = Annotated[list[RunStatus] | None, Query(max_length=10, description="repeat for several")]
Ids = Annotated[list[Int64] | None, Query(max_length=50, description="repeat for several")]
Lines = Annotated[int, Query(ge=1, le=1000, description="lines on a page"), BeforeValidator(parse_int64)]
Follow = Annotated[bool, Query(description="stream it as server-sent events"), BeforeValidator(parse_bool)]
LastEventId = Annotated[str | None, Header(max_length=50, description="resume a stream after this id")]
LOGS = streams.or_page(Page[LogLine])
EVENTS = streams.or_page(Page[RunEvent])
Causes = Annotated[list[Cause] | None, Query(max_length=10, description="repeat for several")]

PassedSla = Annotated[
    bool | None, Query(description="true: not over by its SLA"), BeforeValidator(parse_bool)
]


@router.get("/pipeline_runs")
@needs(Access.VIEWER)
async def list_runs(
    engine: EngineDep,
    pipeline_uuid: Names = None,
    status: Statuses = None,
    pipeline_schedule_id: Ids = None,
    cause: Causes = None,
    passed_sla: PassedSla = None,
    created_from: Annotated[Time | None, Query(alias="created_at[gte]")] = None,
    created_before: Annotated[Time | None, Query(alias="created_at[lt]")] = None,
    dated_from: Annotated[Time | None, Query(alias="execution_date[gte]")] = None,
    dated_before: Annotated[Time | None, Query(alias="execution_date[lt]")] = None,
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
        passed_sla=passed_sla,
        created=(created_from, created_before),
        dated=(dated_from, dated_before),
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


@router.get("/pipeline_runs/{run_id}/explain", responses=problems.declare(404))
@needs(Access.VIEWER)
async def explain_run(run_id: RunId, engine: EngineDep) -> RunExplanation:
    """Why the run waits, what it is doing, or why it failed or was cancelled; the first reason decides."""
    return RunExplanation.model_validate(await explaining.run(engine.db, run_id, now=clock.now()))


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
    asked = await engine.cancel(run_id)
    try:
        await engine.wait(run_id, _CANCEL_S if wait_s is None else wait_s)
        return await run_with_blocks(engine, run_id)
    except StoreUnavailable:  # it has been asked, whatever can be read of it now
        return PipelineRun.model_validate(asked)


@router.post(
    "/pipeline_runs/{run_id}/retry",
    status_code=201,
    responses={
        **problems.declare(404, 409),
        202: {"model": PipelineRun, "description": "Waited for as asked, and not over yet"},
    },
)
@needs(Access.OPERATOR)
async def retry_run(
    run_id: RunId,
    engine: EngineDep,
    response: Response,
    body: RunRetry | None = None,
    prefer: Prefer = None,
    key: KeyDep = None,
) -> PipelineRun:
    """Run a finished run again, as a new run that carries over what need not run again."""
    wait_s = wait_of(prefer)
    asked = body or RunRetry()
    run = await engine.retry(
        run_id,
        source=asked.source,
        variables=asked.variables,
        changed=asked.changed,
        idempotency=key,
    )
    return await answer_with_run(engine, run, response, wait_s)


@router.get(
    "/pipeline_runs/{run_id}/events", response_model=None, responses={**problems.declare(404), **EVENTS}
)
@needs(Access.VIEWER)
async def get_events(
    run_id: RunId,
    engine: EngineDep,
    request: Request,
    limit: Lines = 200,
    cursor: Cursor = None,
    follow: Follow = False,
    last_event_id: LastEventId = None,
) -> Page[RunEvent] | StreamingResponse:
    """What happened to the run, oldest first; with `follow=true` as a stream that ends with `end`."""
    await require_run(engine, run_id)
    after = _event_position(last_event_id, cursor)

    async def fetch(position: int, count: int) -> list[events.EventRow]:
        return await engine.db.read(events.page, run_id, after=position, limit=count)

    if streams.wanted(request, follow):
        return streams.stream(request, engine, run_id, "run_event", fetch, RunEvent, after)
    run = await require_run(engine, run_id)
    found = await fetch(after, limit)
    more = len(found) == limit or run.status not in RUN_TERMINAL
    position = found[-1].id if found else after
    return Page(
        items=[RunEvent.model_validate(event) for event in found],
        next_cursor=cursors.wrap("event", position) if more else None,
    )


def _event_position(last_event_id: str | None, cursor: str | None) -> int:
    if last_event_id is not None:
        return cursors.number(last_event_id, "Last-Event-ID")
    return int(cursors.unwrap_id("event", cursor) or 0) if cursor else -1


@router.get("/pipeline_runs/{run_id}/logs", response_model=None, responses={**problems.declare(404), **LOGS})
@needs(Access.VIEWER)
async def get_logs(
    run_id: RunId,
    engine: EngineDep,
    request: Request,
    block_uuid: Annotated[str | None, Query(max_length=255)] = None,
    limit: Lines = 200,
    cursor: Cursor = None,
    follow: Follow = False,
    last_event_id: LastEventId = None,
) -> Page[LogLine] | StreamingResponse:
    """The log, oldest line first; with `follow=true` as a stream that ends with `end`.

    `next_cursor` is null only when the run is over and all of its log was given.
    """
    if not streams.wanted(request, follow):
        return await log_page(engine, run_id, block_uuid, limit, cursor)
    after = last_event_id or (cursors.unwrap("log", cursor) if cursor else "")
    if after:
        logs.parse_id(after)
    await require_run(engine, run_id)

    async def fetch(position: str, count: int) -> list[LogRow]:
        return await engine.db.read(
            logs.page, run_id, after=position or None, limit=count, block_uuid=block_uuid
        )

    return streams.stream(request, engine, run_id, "log", fetch, LogLine, after)


async def log_page(
    engine: Engine, run_id: int, block_uuid: str | None, limit: int, cursor: str | None
) -> Page[LogLine]:
    """A page of a run's log, or of one block's part of it."""
    after = cursors.unwrap("log", cursor) if cursor else ""
    run = await require_run(
        engine, run_id
    )  # before the lines: what a run that is over has written is complete
    lines = await engine.db.read(logs.page, run_id, after=after or None, limit=limit, block_uuid=block_uuid)
    more = len(lines) == limit or run.status not in RUN_TERMINAL
    position = lines[-1].id if lines else after
    return Page(
        items=[LogLine.model_validate(line) for line in lines],
        next_cursor=cursors.wrap("log", position) if more else None,
    )


async def answer_with_run(engine: Engine, run: RunRow, response: Response, wait_s: int | None) -> PipelineRun:
    """Answer a request that made a run: at once, or when it is over, as far as the caller waits."""
    response.headers["Location"] = f"/api/v1/pipeline_runs/{run.id}"
    if wait_s is None:
        return PipelineRun.model_validate(run)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    try:
        if not await engine.wait(run.id, wait_s):
            response.status_code = 202
        return await run_with_blocks(engine, run.id)
    except StoreUnavailable:  # it has been made, whatever can be read of it now
        response.status_code = 202
        return PipelineRun.model_validate(run)


async def run_with_blocks(engine: Engine, run_id: int) -> PipelineRun:
    """A run as it now stands, with its block runs. Raises RunNotFound."""
    run = await require_run(engine, run_id)
    blocks, families = await engine.db.read(runs.templates, run_id)
    shown = [BlockRun.model_validate(block).with_children(families.get(block.id)) for block in blocks]
    return PipelineRun.model_validate(run).model_copy(update={"block_runs": shown})


async def require_run(engine: Engine, run_id: int) -> RunRow:
    """The run of that id. Raises RunNotFound."""
    run = await engine.db.read(runs.get, run_id)
    if run is None:
        raise RunNotFound(f"No pipeline run has the id {run_id}.")
    return run
