"""The timetable of a trigger, with all its settings: what the tick, the preview and the explanation share."""

from datetime import datetime

from app.models.rows import ScheduleRow
from app.scheduler import timetable
from app.scheduler.every import PREFIX
from app.scheduler.landing import landing_table
from app.scheduler.timetable import Timetable


def table_of(schedule: ScheduleRow, *, week_start: str, timezone: str = "UTC") -> Timetable:
    """The slots of a trigger. `timezone` is the project's, for a trigger that names none.

    Reads `settings`: `dst_gap`, `dst_overlap`, `landing_time_enabled`. `@every` counts from `start_time`, else
    from the moment the trigger was enabled. Cheap: what is costly about it is cached. Raises InvalidInterval.
    """
    settings = schedule.settings
    interval = schedule.schedule_interval or ""
    table = timetable.parse(
        interval,
        schedule.timezone or timezone,
        week_start,
        str(settings.get("dst_gap") or "next"),
        str(settings.get("dst_overlap") or "first"),
        _anchor(schedule) if interval.lstrip()[: len(PREFIX)].lower() == PREFIX else None,
    )
    return landing_table(table, schedule.start_time) if settings.get("landing_time_enabled") else table


def _anchor(schedule: ScheduleRow) -> datetime:
    return schedule.start_time or schedule.last_enabled_at or schedule.created_at
