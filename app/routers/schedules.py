"""The triggers of the project's pipelines, as their files define them."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query

from app.auth import Access, needs
from app.errors import ScheduleNotFound
from app.models.rows import ScheduleRow
from app.models.schemas import Page, PipelineSchedule
from app.models.states import ScheduleStatus
from app.routers import cursors, problems
from app.routers.asks import Cursor, EngineDep, Limit, ScheduleId
from app.routers.door import Door
from app.store import schedules

router = APIRouter(route_class=Door, tags=["triggers"])

Names = Annotated[list[str] | None, Query(max_length=50, description="repeat for several")]
Statuses = Annotated[list[ScheduleStatus] | None, Query(max_length=10, description="repeat for several")]


@router.get("/pipeline_schedules")
@needs(Access.VIEWER)
async def list_schedules(
    engine: EngineDep,
    pipeline_uuid: Names = None,
    status: Statuses = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[PipelineSchedule]:
    """Triggers that pass every filter, oldest first; quarantined ones with their error."""
    found = await engine.db.read(
        schedules.page,
        pipeline_uuid=pipeline_uuid,
        status=status,
        limit=limit + 1,
        after_id=cursors.unwrap_id("schedule", cursor),
    )
    last = cursors.wrap("schedule", found[limit - 1].id) if len(found) > limit else None
    return Page(items=[_shown(row) for row in found[:limit]], next_cursor=last)


@router.get("/pipeline_schedules/{schedule_id}", responses=problems.declare(404))
@needs(Access.VIEWER)
async def get_schedule(schedule_id: ScheduleId, engine: EngineDep) -> PipelineSchedule:
    """One trigger."""
    found = await engine.db.read(schedules.get, schedule_id)
    if found is None:
        raise ScheduleNotFound(f"No trigger has the id {schedule_id}.")
    return _shown(found)


def _shown(row: ScheduleRow) -> PipelineSchedule:
    """A trigger as callers see it; the slot it waits for is what it fires for next."""
    return PipelineSchedule.model_validate(replace(row, next_execution_date=row.next_fire_at))
