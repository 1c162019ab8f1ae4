"""When a trigger is due, without any clock."""

from datetime import datetime, timedelta
from pathlib import Path

from app.errors import InvalidInput
from app.models.states import ScheduleType
from app.pipelines.catalogue import DEFAULT_ENV, Catalogue, TriggerEntry
from app.scheduler import blackouts
from app.scheduler.ahead import row_of
from app.scheduler.catalogues import fresh_catalogue
from app.scheduler.catchup import next_slot
from app.scheduler.tables_of import table_of

#: More dates than this is not a test of a schedule any more.
MAX_DATES = 10_000
_US = timedelta(microseconds=1)


def due(
    project: str | Path, pipeline_uuid: str, trigger: str, *, between: tuple[datetime, datetime]
) -> list[datetime]:
    """The execution dates of a time trigger from `between[0]` up to, not including, `between[1]`.

    The bounds are aware; the dates come in the trigger's own zone. `start_time`, `end_time`, daylight saving and
    blackouts are heeded, `status` is not. Raises InvalidInput for what is no time trigger or is quarantined,
    PipelineNotFound.
    """
    catalogue = fresh_catalogue(Path(project), DEFAULT_ENV)
    entry = trigger_of(catalogue, pipeline_uuid, trigger)
    if entry.schedule_type is not ScheduleType.TIME or entry.schedule_interval is None:
        raise InvalidInput(f"trigger '{trigger}' of '{pipeline_uuid}' is no time trigger: it has no dates")
    first, last = max(between[0], entry.start_time or between[0]), between[1]
    row = row_of(entry, now=first)
    table = table_of(row, week_start=catalogue.project.week_start)
    quiet = blackouts.parse(row.settings.get("blackouts"), table.zone.key)
    found: list[datetime] = []
    slot = next_slot(row, table, first - _US)  # the timetable counts from after its bound
    while slot is not None and slot < last and len(found) < MAX_DATES:
        if slot >= first and not quiet.covers(slot):
            found.append(slot.astimezone(table.zone))
        slot = next_slot(row, table, slot)
    return found


def trigger_of(catalogue: Catalogue, pipeline_uuid: str, name: str) -> TriggerEntry:
    """A trigger of a pipeline's `triggers.yaml`. Raises InvalidInput naming those there are."""
    catalogue.entry(pipeline_uuid)
    own = {entry.name: entry for entry in catalogue.triggers() if entry.pipeline_uuid == pipeline_uuid}
    if name not in own:
        known = ", ".join(own) or "none"
        raise InvalidInput(f"pipeline '{pipeline_uuid}' has no trigger '{name}'", hint=f"it has: {known}")
    if own[name].error is not None:
        raise InvalidInput(f"trigger '{name}' of '{pipeline_uuid}': {own[name].error}")
    return own[name]
