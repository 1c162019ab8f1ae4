"""A retry is a new run: it carries over what is finished and runs the rest again, with the pipeline as it is now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import Conflict, RunNotFound, UnknownBlock
from app.models.pipeline import Pipeline
from app.models.rows import BlockRow, RunRow, ScheduleRow
from app.models.states import RUN_TERMINAL, BlockStatus, Cause
from app.pipelines.catalogue import Catalogue
from app.scheduler.launch import Carried, LaunchRequest, narrowed
from app.store import runs, schedules
from app.store.db import Database, dumps


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a retry launches."""

    request: LaunchRequest
    schedule: ScheduleRow | None
    carried: Carried
    extra: Mapping[str, Any]


def rerun(pipeline: Pipeline, finished: Sequence[str], source: str) -> set[str]:
    """Blocks that run again: what did not finish, or is asked for, and everything below it.

    >>> from app.models.pipeline import Block, BlockType
    >>> a, b, c = (Block(u, BlockType.CUSTOM, u, upstream=up) for u, up in (("a", ()), ("b", ("a",)), ("c", ())))
    >>> sorted(rerun(Pipeline("p", (a, b, c)), ["a", "c"], "failed"))
    ['b']
    >>> sorted(rerun(Pipeline("p", (a, b, c)), ["a", "b", "c"], "a"))
    ['a', 'b']
    """
    again: set[str] = set()
    for block in pipeline.blocks:  # upstreams first: one pass reaches the bottom
        unfinished = block.uuid not in finished
        if source == "start" or block.uuid == source or unfinished or again.intersection(block.upstream):
            again.add(block.uuid)
    return again


async def plan(
    db: Database, catalogue: Catalogue, run_id: int, *, source: str, variables: Mapping[str, Any] | None
) -> RetryPlan:
    """Plan the retry of a run. Raises RunNotFound, Conflict, UnknownBlock, PipelineNotFound, PipelineInvalid."""
    old = await db.read(runs.get, run_id)
    if old is None:
        raise RunNotFound(f"there is no pipeline run {run_id}")
    if old.status not in RUN_TERMINAL:
        raise Conflict(f"run {run_id} is {old.status}", hint="wait for its end, or cancel it, then retry")
    request = _request(old, variables)
    pipeline = narrowed(catalogue.get(old.pipeline_uuid), request)
    if source not in ("failed", "start") and source not in pipeline.by_uuid:
        known = ", ".join(block.uuid for block in pipeline.blocks)
        raise UnknownBlock(
            f"run {run_id} has no block '{source}'", hint=f"'failed', 'start', or one of: {known}"
        )
    blocks = await db.read(runs.blocks, run_id, attempts=False)
    root = await db.read(runs.retry_root, run_id)
    schedule = None
    if old.pipeline_schedule_id is not None:
        schedule = await db.read(schedules.get, old.pipeline_schedule_id)
    return RetryPlan(
        request,
        schedule,
        _carried(pipeline, blocks, source, only=request.block_uuid),
        {"retry_of": old.id, "retry_root": root or old.id},
    )


def _request(old: RunRow, variables: Mapping[str, Any] | None) -> LaunchRequest:
    return LaunchRequest(
        pipeline_uuid=old.pipeline_uuid,
        variables={**old.variables, **(variables or {})},
        event_variables=old.event_variables,
        execution_date=old.execution_date,
        block_uuid=old.options.get("block_uuid"),
        skip_sensors=bool(old.options.get("skip_sensors")),
        priority=old.priority,
        concurrency_key=old.concurrency_key,
        cause=Cause.RETRY,
    )


def _carried(pipeline: Pipeline, blocks: Sequence[BlockRow], source: str, *, only: str | None) -> Carried:
    done = {block.block_uuid: block for block in blocks if block.status is BlockStatus.COMPLETED}
    satisfied = [*done, *(b.block_uuid for b in blocks if b.status is BlockStatus.SKIPPED)]
    again = rerun(pipeline, satisfied, source)
    if only is not None:  # a run of one block: what it reads from was never run by it
        again &= {only}
    return {
        uuid: (block.id, dumps(list(block.outputs)))
        for uuid, block in done.items()
        if uuid not in again and uuid in pipeline.by_uuid
    }
