"""The pipelines of the project, and starting one."""

from fastapi import APIRouter, Response

from app.auth import Access, needs
from app.models.pipeline import Block, Pipeline
from app.models.schemas import BlockDefinition, PipelineDefinition, PipelineRun, RunCreate
from app.models.wire import Page
from app.pipelines.catalogue import CatalogueEntry
from app.routers import cursors, problems
from app.routers.asks import Cursor, EngineDep, Limit, PipelineUuid, Prefer, wait_of
from app.routers.door import Door
from app.routers.repeats import KeyDep
from app.routers.runs import answer_with_run
from app.scheduler.launch import LaunchRequest

router = APIRouter(route_class=Door, tags=["pipelines"])


@router.get("/pipelines")
@needs(Access.VIEWER)
async def list_pipelines(
    engine: EngineDep, limit: Limit = 50, cursor: Cursor = None
) -> Page[PipelineDefinition]:
    """The pipelines of the project in the order of their names, invalid ones with their error."""
    after = cursors.unwrap("pipeline", cursor) if cursor else ""
    entries = [entry for entry in engine.catalogue.entries() if entry.uuid > after]
    last = cursors.wrap("pipeline", entries[limit - 1].uuid) if len(entries) > limit else None
    return Page(items=[_definition(entry) for entry in entries[:limit]], next_cursor=last)


@router.get("/pipelines/{uuid}", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_pipeline(uuid: PipelineUuid, engine: EngineDep) -> PipelineDefinition:
    """One pipeline with its blocks in an order in which they can run."""
    return _definition(engine.catalogue.entry(uuid))


@router.post(
    "/pipelines/{uuid}/pipeline_runs",
    status_code=201,
    response_description="The run exists; with `Prefer: wait` it is over",
    responses={
        **problems.declare(404),
        202: {"model": PipelineRun, "description": "Waited for as asked, and not over yet"},
    },
)
@needs(Access.OPERATOR)
async def start_run(
    uuid: PipelineUuid,
    engine: EngineDep,
    response: Response,
    body: RunCreate | None = None,
    prefer: Prefer = None,
    key: KeyDep = None,
) -> PipelineRun:
    """Start a run of the pipeline now. With `Prefer: wait=N` the answer comes when the run is over."""
    wait_s = wait_of(prefer)
    if not engine.ready:
        raise problems.NotReady("The service is starting or stopping.", hint="Ask again in a moment.")
    asked = body or RunCreate()
    run = await engine.launch(
        LaunchRequest(
            pipeline_uuid=uuid,
            variables=asked.variables,
            execution_date=asked.execution_date,
            block_uuid=asked.block_uuid,
            with_upstream=asked.with_upstream,
            skip_sensors=asked.skip_sensors,
            priority=asked.priority,
            concurrency_key=asked.concurrency_key,
        ),
        idempotency=key,
    )
    return await answer_with_run(engine, run, response, wait_s)


def _definition(entry: CatalogueEntry) -> PipelineDefinition:
    pipeline = entry.pipeline
    return PipelineDefinition(
        uuid=entry.uuid,
        name=entry.name,
        type=entry.type,
        description=entry.description,
        tags=list(entry.tags),
        status="invalid" if pipeline is None else "ok",
        error=str(entry.error) if entry.error else None,
        warnings=[*entry.warnings, *map(str, entry.trigger_errors)],
        blocks=[_block(pipeline, block) for block in pipeline.blocks] if pipeline else [],
    )


def _block(pipeline: Pipeline, block: Block) -> BlockDefinition:
    return BlockDefinition(
        uuid=block.uuid,
        name=block.name or block.uuid,
        type=block.type,
        language=block.language,
        file=block.file,
        upstream_blocks=list(block.upstream),
        downstream_blocks=list(pipeline.downstream[block.uuid]),
        isolation=block.isolation,
        timeout=block.timeout_s,
    )
