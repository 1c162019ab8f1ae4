"""What a trigger's slots became and will become: the ledger, its explanation, and a look ahead."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from app import clock
from app.auth import Access, needs
from app.errors import ScheduleNotFound
from app.models.explain_schemas import (
    ClockChange,
    PreviewAsked,
    SchedulePreview,
    SlotExplanation,
    Upcoming,
    UpcomingRun,
    UpcomingSlot,
)
from app.models.states import SlotOutcome
from app.models.trigger_schemas import Slot
from app.models.wire import Int64, Page, Time, parse_int64
from app.routers import cursors, problems
from app.routers.asks import Cursor, EngineDep, Limit, ScheduleId
from app.routers.door import Door
from app.scheduler import ahead, explaining
from app.scheduler.triggers import TriggerDraft
from app.store import ledger, pausing, schedules

router = APIRouter(route_class=Door, tags=["triggers"])

Outcomes = Annotated[list[SlotOutcome] | None, Query(max_length=10, description="repeat for several")]
SlotReasons = Annotated[
    list[Annotated[str, Query(max_length=100)]] | None,
    Query(max_length=20, description="such as `catch_up` or `overlap`; repeat for several"),
]
At = Annotated[Time, Query(description="the moment that is asked about, as a rule a slot's execution date")]
Ids = Annotated[list[Int64] | None, Query(max_length=50, description="repeat for several")]
Names = Annotated[list[str] | None, Query(max_length=50, description="repeat for several")]
Count = Annotated[int, Query(ge=1, le=200, description="how many slots"), BeforeValidator(parse_int64)]


@router.get("/pipeline_schedules/upcoming")
@needs(Access.VIEWER)
async def list_upcoming(
    engine: EngineDep, pipeline_schedule_id: Ids = None, pipeline_uuid: Names = None, count: Count = 10
) -> Upcoming:
    """The next slots of the active triggers, all together, in the order of time. `@always_on` has none."""
    found = await ahead.upcoming(
        engine.db,
        engine.catalogue.project,
        now=clock.now(),
        count=count,
        ids=tuple(pipeline_schedule_id or ()),
        pipelines=tuple(pipeline_uuid or ()),
    )
    return Upcoming(items=[UpcomingRun.model_validate(slot) for slot in found])


@router.post("/pipeline_schedules/preview")
@needs(Access.VIEWER)
async def preview_schedule(body: PreviewAsked, engine: EngineDep) -> SchedulePreview:
    """When a trigger would fire that is not there yet. Nothing is kept; a definition with a fault is a 422.

    `clock_changes` are the times within a year that a change of the clocks skips or repeats, with what the
    trigger's `dst_gap` and `dst_overlap` make of them.
    """
    now = clock.now()
    entry = engine.triggers.check(
        TriggerDraft(
            pipeline_uuid="",
            name="preview",
            schedule_interval=body.schedule_interval,
            timezone=body.timezone,
            start_time=body.start_time,
            settings=body.settings,
        )
    )
    found = await asyncio.to_thread(
        ahead.of_definition,
        entry,
        engine.catalogue.project,
        now=now,
        after=body.after or now,
        count=body.count,
    )
    changes = [
        ClockChange(code=m.code, wall=m.wall.isoformat(), change=m.change, slot=m.slot, text=m.text)
        for m in found.clock_changes
    ]
    items = [UpcomingSlot.model_validate(slot) for slot in found.items]
    return SchedulePreview(
        in_words=found.in_words, timezone=found.timezone, items=items, clock_changes=changes
    )


@router.get("/pipeline_schedules/{schedule_id}/slots", responses=problems.declare(404))
@needs(Access.VIEWER)
async def list_slots(
    schedule_id: ScheduleId,
    engine: EngineDep,
    outcome: Outcomes = None,
    reason: SlotReasons = None,
    dated_from: Annotated[Time | None, Query(alias="execution_date[gte]")] = None,
    dated_before: Annotated[Time | None, Query(alias="execution_date[lt]")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Slot]:
    """The ledger, newest slot first: every due slot and what became of it, also of a deleted trigger."""
    if not await engine.db.read(schedules.exists, schedule_id):
        raise ScheduleNotFound(f"No trigger has the id {schedule_id}.")
    found = await engine.db.read(
        ledger.page,
        schedule_id,
        limit=limit + 1,
        before=cursors.unwrap_time("slot", cursor),
        outcome=outcome,
        reason=reason,
        dated=(dated_from, dated_before),
    )
    more = len(found) > limit
    last = cursors.wrap("slot", found[limit - 1].execution_date.isoformat()) if more else None
    return Page(items=[Slot.model_validate(slot) for slot in found[:limit]], next_cursor=last)


@router.get("/pipeline_schedules/{schedule_id}/explain", responses=problems.declare(404))
@needs(Access.VIEWER)
async def explain_schedule(schedule_id: ScheduleId, engine: EngineDep, at: At) -> SlotExplanation:
    """Why the trigger did, did not or will start a run at a moment, also of a deleted one.

    `reasons` begins with the one that decides; `previous` and `next` are the slots beside it.
    """
    answer = await explaining.schedule_at(
        engine.db,
        engine.catalogue.project,
        schedule_id,
        at,
        now=clock.now(),
        paused=engine.settings.paused or await engine.db.read(pausing.paused) is not None,
    )
    return SlotExplanation.model_validate(answer)
