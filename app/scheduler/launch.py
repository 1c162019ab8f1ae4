"""One door in: what every run is made of, whatever its cause. `intake.py` takes it to the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.errors import FieldError, InvalidInput, UnknownBlock
from app.models.pipeline import Block, BlockType, Pipeline
from app.models.rows import ScheduleRow
from app.models.states import BlockStatus, Cause
from app.scheduler import variables
from app.scheduler.admission import judged
from app.store.ids import Ids
from app.store.launch import NewBlock, NewRun

MAX_PRIORITY = 1_000_000
#: block uuid -> (block run id, outputs as JSON text): what an earlier run left
Carried = Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What a caller asks for. `execution_date` is aware; None is now."""

    pipeline_uuid: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    execution_date: datetime | None = None
    block_uuid: str | None = None
    #: run everything above `block_uuid` too, instead of taking what an earlier run left
    with_upstream: bool = False
    #: of a retry: blocks of which no child is carried over
    anew: tuple[str, ...] = ()
    skip_sensors: bool = False
    priority: int = 0
    #: runs of one key share the limit that is set on it
    concurrency_key: str | None = None
    cause: Cause = Cause.API
    event_variables: Mapping[str, Any] = field(default_factory=dict)


def check(request: LaunchRequest, pipeline: Pipeline) -> None:
    """Refuse what can be refused before anything is written. Raises InvalidInput or UnknownBlock."""
    variables.check(request.variables)
    if request.with_upstream and request.block_uuid is None:
        message = "with_upstream needs block_uuid: without it the whole pipeline runs anyway"
        raise InvalidInput(message, errors=[FieldError("/with_upstream", "needs block_uuid")])
    if request.block_uuid is not None and request.block_uuid not in pipeline.by_uuid:
        known = ", ".join(block.uuid for block in pipeline.blocks)
        raise UnknownBlock(
            f"pipeline '{pipeline.uuid}' has no block '{request.block_uuid}'", hint=f"it has: {known}"
        )
    if abs(request.priority) > MAX_PRIORITY:
        raise InvalidInput(
            f"priority must lie within ±{MAX_PRIORITY}",
            errors=[FieldError("/priority", f"must lie within ±{MAX_PRIORITY}")],
        )
    if request.execution_date is not None and request.execution_date.tzinfo is None:
        raise InvalidInput(
            "execution_date needs an offset", errors=[FieldError("/execution_date", "naive time")]
        )


def narrowed(pipeline: Pipeline, request: LaunchRequest) -> Pipeline:
    """The part of the pipeline that a request runs: all of it, or one block with the upstreams it reads from."""
    if request.block_uuid is None:
        return pipeline
    if request.with_upstream:
        return pipeline.only(pipeline.above(request.block_uuid))
    block = pipeline.by_uuid[request.block_uuid]
    return pipeline.only({block.uuid, *block.upstream})


def missing(pipeline: Pipeline, request: LaunchRequest, carried: Carried) -> None:
    """Refuse a single block whose upstream outputs nobody has. Raises InvalidInput naming them."""
    if request.block_uuid is None:
        return
    upstream = pipeline.by_uuid[request.block_uuid].upstream
    lacking = [uuid for uuid in upstream if uuid not in carried]
    if lacking:
        names = ", ".join(f"'{uuid}'" for uuid in lacking)
        raise InvalidInput(
            f"block '{request.block_uuid}' reads from {names}, and no completed run of '{pipeline.uuid}' has left"
            " their outputs here",
            hint="run the whole pipeline once, then the block alone",
        )


async def new_run(
    pipeline: Pipeline,
    request: LaunchRequest,
    *,
    run_ids: Ids,
    block_ids: Ids,
    now: datetime,
    carried: Carried | None = None,
    schedule: ScheduleRow | None = None,
    extra: Mapping[str, Any] | None = None,
    week_start: str = "sunday",
) -> tuple[NewRun, Pipeline]:
    """The rows of a run that is to be, with what of the pipeline it runs. `extra` adds columns (dedupe key …)."""
    part = narrowed(pipeline, request)
    (run_id,) = await run_ids.take()
    ids = await block_ids.take(len(part.blocks))
    settings = schedule.settings if schedule else {}
    trigger = schedule.variables if schedule else {}
    values: dict[str, Any] = {
        "pipeline_uuid": pipeline.uuid,
        "pipeline_hash": part.hash,
        "cause": request.cause,
        "execution_date": request.execution_date or now,
        "variables": variables.merge(pipeline.variables, trigger, request.variables),
        "event_variables": dict(request.event_variables),
        "options": options(pipeline, request, schedule, week_start),
        "priority": request.priority,
        "concurrency_key": request.concurrency_key,
        "pipeline_schedule_id": schedule.id if schedule else None,
        "timeout_s": settings.get("timeout"),
        "timeout_status": settings.get("timeout_status"),
        "sla_at": sla_at(schedule, request, now),
        **(extra or {}),
    }
    blocks = tuple(
        _new_block(block, block_id, request, carried or {})
        for block, block_id in zip(part.blocks, ids, strict=True)
    )
    by = judged(pipeline.uuid, schedule.id if schedule else None, settings, pipeline.limits, request.cause)
    new = NewRun(id=run_id, values=values, definition=part.definition, blocks=blocks, judged=by)
    return new, part


def sla_at(schedule: ScheduleRow | None, request: LaunchRequest, now: datetime) -> datetime | None:
    """When a run must be over: its trigger's `sla` after its slot, and for what no timetable asked, after its making.

    A slot that is caught up late is late at birth; a retry has a new SLA of its own.
    """
    if schedule is None or not schedule.sla:
        return None
    since = request.execution_date if request.cause is Cause.TICK else None
    return (since or now) + timedelta(seconds=schedule.sla)


def options(
    pipeline: Pipeline, request: LaunchRequest, schedule: ScheduleRow | None, week_start: str = "sunday"
) -> dict[str, Any]:
    """What is frozen with the run besides its definition."""
    found: dict[str, Any] = {}
    if request.block_uuid is not None:
        found["block_uuid"] = request.block_uuid
        if request.with_upstream:
            found["with_upstream"] = True
    if request.skip_sensors:
        found["skip_sensors"] = True
    if request.anew:
        found["anew"] = list(request.anew)
    if schedule is not None:
        found["trigger"] = variables.of_trigger(schedule, week_start)
        if schedule.settings.get("allow_blocks_to_fail"):
            found["allow_blocks_to_fail"] = True
        if schedule.sla and (on_sla := schedule.settings.get("on_sla")):
            found["on_sla"] = on_sla
    elif pipeline.timezone != "UTC":
        found["trigger"] = {"timezone": pipeline.timezone}
    return found


def _new_block(block: Block, block_id: int, request: LaunchRequest, carried: Carried) -> NewBlock:
    if block.uuid in carried:
        source, outputs = carried[block.uuid]
        return NewBlock(
            block_id, block.uuid, status=BlockStatus.COMPLETED, carried_from=source, outputs=outputs
        )
    if request.skip_sensors and block.type is BlockType.SENSOR:
        return NewBlock(block_id, block.uuid, status=BlockStatus.SKIPPED, reason="skip_sensors")
    return NewBlock(block_id, block.uuid, block.retry.retries + 1)
