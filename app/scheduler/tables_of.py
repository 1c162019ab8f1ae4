"""The timetable of a trigger, with all its settings: what the tick, the preview and the explanation share."""

from datetime import datetime

from app.models.rows import ScheduleRow
from app.scheduler import timetable
from app.scheduler.every import PREFIX
from app.scheduler.landing import landing_table
from app.scheduler.timetable import Timetable


def table_of(schedule: ScheduleRow, *, week_start: str) -> Timetable:
    """The slots of a trigger, in UTC where its row names no zone: the project's was written into it.

    Reads `settings`: `dst_gap`, `dst_overlap`, `landing_time_enabled`. `@every` counts from `start_time`, else
    from the moment the trigger was enabled. Cheap: what is costly about it is cached. Raises InvalidInterval.
    """
    settings = schedule.settings
    interval = schedule.schedule_interval or ""
    table = timetable.parse(
        interval,
        schedule.timezone or "UTC",
        week_start,
        str(settings.get("dst_gap") or "next"),
        str(settings.get("dst_overlap") or "first"),
        once_at(schedule) if interval.lstrip()[: len(PREFIX)].lower() == PREFIX else None,
    )
    return landing_table(table, schedule.start_time) if settings.get("landing_time_enabled") else table


def once_at(schedule: ScheduleRow) -> datetime:
    """The one execution date of an `@once` trigger, and one of an `@every` trigger's."""
    return schedule.start_time or schedule.last_enabled_at or schedule.created_at
