"""Triggers: the ones of the files to look at and to fire, the ones of the API to make and to change as well."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response

from app.auth import Access, needs
from app.errors import ScheduleNotFound
from app.models.explain_schemas import MissedSlots, ScheduleResume
from app.models.rows import ScheduleRow
from app.models.schemas import Nothing, PipelineRun
from app.models.states import ScheduleStatus, ScheduleType
from app.models.system_schemas import Applied, Apply
from app.models.trigger_schemas import (
    NewSchedule,
    PipelineSchedule,
    ScheduleCreate,
    SchedulePatch,
    Token,
    TriggerNow,
)
from app.models.wire import Page
from app.routers import cursors, problems
from app.routers.asks import Cursor, EngineDep, Limit, Prefer, ScheduleId, wait_of
from app.routers.door import Door
from app.routers.repeats import KeyDep
from app.routers.runs import answer_with_run
from app.scheduler import applying
from app.scheduler.engine import Engine
from app.scheduler.triggers import TriggerDraft
from app.store import schedules

router = APIRouter(route_class=Door, tags=["triggers"])

Names = Annotated[list[str] | None, Query(max_length=50, description="repeat for several")]
Statuses = Annotated[list[ScheduleStatus] | None, Query(max_length=10, description="repeat for several")]
Types = Annotated[list[ScheduleType] | None, Query(max_length=10, description="repeat for several")]
IfMatch = Annotated[
    str | None,
    Header(max_length=200, description="the ETag of what you have seen; a 412 if it is no longer so"),
]
_ETAG: Final = re.compile(r'"([1-9][0-9]{0,17})"', re.ASCII)
#: A revision that no trigger has.
_NEVER: Final = 0


@router.get("/pipeline_schedules")
@needs(Access.VIEWER)
async def list_schedules(
    engine: EngineDep,
    pipeline_uuid: Names = None,
    name: Names = None,
    status: Statuses = None,
    schedule_type: Types = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[PipelineSchedule]:
    """Triggers that pass every filter, oldest first; quarantined ones with their error."""
    found = await engine.db.read(
        schedules.page,
        pipeline_uuid=pipeline_uuid,
        name=name,
        status=status,
        schedule_type=schedule_type,
        limit=limit + 1,
        after_id=cursors.unwrap_id("schedule", cursor),
    )
    last = cursors.wrap("schedule", found[limit - 1].id) if len(found) > limit else None
    return Page(items=[await _shown(engine, row) for row in found[:limit]], next_cursor=last)


@router.post(
    "/pipeline_schedules",
    status_code=201,
    response_description="The trigger exists",
    responses=problems.declare(409),
)
@needs(Access.EDITOR)
async def create_schedule(
    body: ScheduleCreate, engine: EngineDep, response: Response, key: KeyDep = None
) -> NewSchedule:
    """Make a trigger. The token of an API trigger is in this answer only: a repeated request is not shown it."""
    draft = TriggerDraft(**{**body.model_dump(), "tags": tuple(body.tags)})
    row, token = await engine.triggers.create(draft, idempotency=key)
    response.headers["Location"] = f"/api/v1/pipeline_schedules/{row.id}"
    if row.schedule_type is ScheduleType.API:
        response.headers["Cache-Control"] = "no-store"
    return NewSchedule(**(await _tagged(engine, row, response)).model_dump(), token=token)


@router.post("/pipeline_schedules/apply")
@needs(Access.EDITOR)
async def apply_files(engine: EngineDep, body: Apply | None = None) -> Applied:
    """Bring the triggers to the files of the service's project now, and say what that changes.

    The service follows its files by itself, so as a rule little is left to do but what `prune` asks for: delete
    the triggers whose entry has gone from its file.
    """
    asked = body or Apply()
    found = await applying.apply(
        engine.db,
        engine.settings,
        engine.triggers,
        lambda: engine.passes.sync(force=True),
        prune=asked.prune,
        dry_run=asked.dry_run,
    )
    return Applied.model_validate(found)


@router.get("/pipeline_schedules/{schedule_id}", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_schedule(schedule_id: ScheduleId, engine: EngineDep, response: Response) -> PipelineSchedule:
    """One trigger. Its ETag is its revision, for If-Match."""
    found = await engine.db.read(schedules.get, schedule_id)
    if found is None:
        raise ScheduleNotFound(f"No trigger has the id {schedule_id}.")
    return await _tagged(engine, found, response)


@router.patch("/pipeline_schedules/{schedule_id}", responses=problems.declare(404, 409, 412))
@needs(Access.EDITOR)
async def change_schedule(
    schedule_id: ScheduleId,
    body: SchedulePatch,
    engine: EngineDep,
    response: Response,
    if_match: IfMatch = None,
) -> PipelineSchedule:
    """Change fields of a trigger; null takes an optional one back. An edit never fires the past.

    A trigger of a file is changed in its file: 409. With If-Match nothing changes unless it is as you saw it.
    """
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    row = await engine.triggers.update(schedule_id, changes, revision=_revision_of(if_match))
    return await _tagged(engine, row, response)


@router.delete(
    "/pipeline_schedules/{schedule_id}", status_code=204, responses=problems.declare(404, 409, 412)
)
@needs(Access.EDITOR)
async def delete_schedule(schedule_id: ScheduleId, engine: EngineDep, if_match: IfMatch = None) -> None:
    """Take a trigger out of use. Its runs stay, those under way go on, and its slots can still be read."""
    await engine.triggers.delete(schedule_id, _revision_of(if_match))


@router.post("/pipeline_schedules/{schedule_id}/pause", responses=problems.declare(404, 409))
@needs(Access.OPERATOR)
async def pause_schedule(
    schedule_id: ScheduleId, engine: EngineDep, response: Response, body: Nothing | None = None
) -> PipelineSchedule:
    """Stop it from firing. Runs that exist go on; one that is inactive is returned unchanged."""
    return await _tagged(engine, await engine.triggers.pause(schedule_id), response)


@router.get("/pipeline_schedules/{schedule_id}/resume", responses=problems.declare(404))
@needs(Access.VIEWER)
async def preview_resume(schedule_id: ScheduleId, engine: EngineDep) -> MissedSlots:
    """What a resume would find: the slots that were due meanwhile, and what each `missed` would do with them."""
    return MissedSlots.model_validate(await engine.triggers.missed(schedule_id))


@router.post("/pipeline_schedules/{schedule_id}/resume", responses=problems.declare(404, 409))
@needs(Access.OPERATOR)
async def resume_schedule(
    schedule_id: ScheduleId, engine: EngineDep, response: Response, body: ScheduleResume | None = None
) -> PipelineSchedule:
    """Let it fire again. `missed` says what becomes of the slots that were due meanwhile; without it none of them runs.

    `GET` on the same path tells beforehand what each choice would do.
    """
    asked = body or ScheduleResume()
    return await _tagged(engine, await engine.triggers.resume(schedule_id, asked.missed), response)


@router.post(
    "/pipeline_schedules/{schedule_id}/pipeline_runs",
    status_code=201,
    response_description="The run exists; with `Prefer: wait` it is over",
    responses={
        **problems.declare(404, 409),
        202: {"model": PipelineRun, "description": "Waited for as asked, and not over yet"},
    },
)
@needs(Access.OPERATOR)
async def trigger_now(
    schedule_id: ScheduleId,
    engine: EngineDep,
    response: Response,
    body: TriggerNow | None = None,
    prefer: Prefer = None,
    key: KeyDep = None,
) -> PipelineRun:
    """Start a run of the trigger now, active or not, with its variables and settings.

    When its limits allow no more, the run is `cancelled` at birth and says why.
    """
    wait_s = wait_of(prefer)
    if not engine.ready:
        raise problems.NotReady("The service is starting or stopping.", hint="Ask again in a moment.")
    asked = body or TriggerNow()
    run = await engine.triggers.launch(
        schedule_id, variables=asked.variables, execution_date=asked.execution_date, idempotency=key
    )
    return await answer_with_run(engine, run, response, wait_s)


@router.post("/pipeline_schedules/{schedule_id}/rotate_token", responses=problems.declare(404, 409))
@needs(Access.EDITOR)
async def rotate_token(
    schedule_id: ScheduleId, engine: EngineDep, response: Response, body: Nothing | None = None
) -> Token:
    """A new token for an API trigger; the old one ends. Repeated, with a key or without, it makes another one.

    Also for a trigger of a file, unless the file names the token.
    """
    response.headers["Cache-Control"] = "no-store"
    return Token(token=await engine.triggers.rotate_token(schedule_id))


async def _shown(engine: Engine, row: ScheduleRow) -> PipelineSchedule:
    """A trigger as callers see it: with what it fires for next, and when."""
    return PipelineSchedule.model_validate(await engine.triggers.shown(row))


async def _tagged(engine: Engine, row: ScheduleRow, response: Response) -> PipelineSchedule:
    response.headers["ETag"] = f'"{row.revision}"'
    return await _shown(engine, row)


def _revision_of(if_match: str | None) -> int | None:
    """The revision that an If-Match header names (RFC 9110 §13.1.1); one that is not ours never matches.

    >>> _revision_of('"7"'), _revision_of("*"), _revision_of(None), _revision_of('W/"7"')
    (7, None, None, 0)
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    return int(found[1]) if found else _NEVER
