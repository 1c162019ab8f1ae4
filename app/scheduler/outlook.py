"""A trigger as people see it: what it waits for, whether it has ended, what is wrong with it, what a pause cost it."""

from dataclasses import replace
from datetime import datetime

from app import clock
from app.errors import InvalidInput, PipelineNotFound
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines import trigger_settings
from app.pipelines.catalogue import Catalogue
from app.scheduler import catchup, landing, ticker
from app.scheduler.landing import Expected
from app.scheduler.tables_of import once_at
from app.scheduler.timetable import Timetable
from app.store import slots
from app.store.db import Database


async def shown(db: Database, catalogue: Catalogue, row: ScheduleRow) -> ScheduleRow:
    """The trigger with the slot it waits for and when that starts, whether it has ended, and its error.

    A row that somebody broke by hand shows its error before any tick has met it.
    """
    if row.schedule_type is not ScheduleType.TIME:
        return row
    try:
        table = ticker.judge(row, catalogue)
    except (InvalidInput, PipelineNotFound) as error:
        return replace(row, error=row.error or error.detail)
    if row.error is not None or row.status is not ScheduleStatus.ACTIVE:
        return row
    expected = None
    if table.lands:
        expected = landing.expected(await db.read(slots.runtimes, row.id, landing.HISTORY))
    return upcoming(row, table, now=clock.now(), expected=expected)


def upcoming(row: ScheduleRow, table: Timetable, *, now: datetime, expected: Expected | None) -> ScheduleRow:
    """An active trigger with the slot it waits for. Pure."""
    end = trigger_settings.ends(row.settings)
    if row.next_fire_at is None:
        return replace(row, ended=end is not None and end < now)
    if table.kind == "always_on":
        return replace(row, next_execution_date=row.next_fire_at, starts_at=row.next_fire_at)
    if table.kind == "once":
        return replace(row, next_execution_date=once_at(row), starts_at=max(once_at(row), row.next_fire_at))
    slot = catchup.next_slot(row, table, row.cursor_at or now)
    if slot is None:
        return replace(row, ended=True)
    starts_at = catchup.starts_at(row, table, slot, expected)
    return replace(row, next_execution_date=slot, starts_at=starts_at)


def missed(row: ScheduleRow, catalogue: Catalogue) -> catchup.Missed:
    """What a resume of a trigger, now, has to decide about. Raises InvalidInput, PipelineNotFound."""
    if row.status is ScheduleStatus.ACTIVE or row.schedule_type is not ScheduleType.TIME:
        return catchup.NOTHING
    return catchup.missed(row, ticker.judge(row, catalogue), now=clock.now())
