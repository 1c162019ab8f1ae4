"""A look ahead: what triggers will do next, and what a definition would do that is not there yet."""

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.errors import InvalidInput
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines import trigger_settings
from app.pipelines.project import ProjectConfig
from app.pipelines.triggers import TriggerEntry
from app.scheduler import landing
from app.scheduler.clockchanges import Mark
from app.scheduler.landing import Expected
from app.scheduler.preview import Note, Upcoming, marks, preview
from app.scheduler.words import in_words
from app.store import ledger, slots
from app.store.db import Database

#: Of all triggers so many are looked at, those first that are due first.
_TRIGGERS = 200
#: What comes later is not looked for: a date that comes every 28 years would take seconds to find two hundred times.
_HORIZON = timedelta(days=366 * 50)
#: Clock changes that are told of one definition.
_MARKS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A slot to come of one trigger. `pipeline_schedule_id` is None where only its file is known."""

    pipeline_schedule_id: int | None
    pipeline_uuid: str
    name: str
    execution_date: datetime
    starts_at: datetime | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """When a definition would fire."""

    in_words: str
    timezone: str
    items: tuple[Upcoming, ...]
    clock_changes: tuple[Mark, ...]


async def upcoming(
    db: Database,
    project: ProjectConfig,
    *,
    now: datetime,
    count: int,
    ids: tuple[int, ...] = (),
    pipelines: tuple[str, ...] = (),
) -> list[Ahead]:
    """The next `count` slots of all active triggers that are not quarantined, in the order of time.

    `ids` and `pipelines` narrow it down. `@always_on` has no dates, so it is not among them.
    """
    rows = await db.read(ledger.to_fire, limit=_TRIGGERS, ids=ids, pipelines=pipelines)
    known: dict[int, Expected] = {}
    for row in rows:
        if row.settings.get("landing_time_enabled"):
            known[row.id] = landing.expected(await db.read(slots.runtimes, row.id, landing.HISTORY))
    # Off the loop: two hundred triggers with two hundred slots each take a while.
    return await asyncio.to_thread(merged, rows, project, now=now, count=count, expected=known)


def merged(
    rows: Iterable[ScheduleRow],
    project: ProjectConfig,
    *,
    now: datetime,
    count: int,
    expected: Mapping[int, Expected] | None = None,
) -> list[Ahead]:
    """The next `count` slots of these triggers, in the order of time; of one that cannot be read there are none."""
    each = (_of(row, project, now, count, (expected or {}).get(row.id)) for row in rows)
    return list(heapq.merge(*each, key=lambda slot: (slot.execution_date, slot.pipeline_uuid, slot.name)))[
        :count
    ]


def _of(
    row: ScheduleRow, project: ProjectConfig, now: datetime, count: int, expected: Expected | None
) -> Iterator[Ahead]:
    try:
        trigger_settings.check(row.settings)  # somebody may have written them into the table
        found = preview(
            _bounded(row, now),
            now=now,
            count=count,
            week_start=project.week_start,
            expected=expected,
        )
    except InvalidInput:  # it is quarantined, or will be at the next tick
        return
    for slot in found:
        yield Ahead(
            pipeline_schedule_id=row.id or None,
            pipeline_uuid=row.pipeline_uuid,
            name=row.name,
            execution_date=slot.execution_date,
            starts_at=slot.starts_at,
            notes=slot.notes,
        )


def of_definition(
    entry: TriggerEntry, project: ProjectConfig, *, now: datetime, after: datetime, count: int
) -> Preview:
    """When a trigger with this definition would fire after a moment, and what a year of clock changes does to it.

    Call it off the loop: what comes once in decades is looked for day by day.
    """
    row = row_of(entry, now=now)
    jitter = row.settings.get("jitter_s")
    # How much later a run starts depends on the id, which the trigger does not have yet.
    row = replace(row, settings={key: value for key, value in row.settings.items() if key != "jitter_s"})
    week_start = project.week_start
    found = preview(_bounded(row, after), now=after, count=count, week_start=week_start)
    if jitter:
        note = Note("jitter", f"its run starts up to {jitter:g} s later")
        found = [replace(slot, notes=(*slot.notes, note)) for slot in found]
    return Preview(
        in_words=in_words(row.schedule_interval or "", week_start),
        timezone=row.timezone or "UTC",
        items=tuple(found),
        clock_changes=tuple(marks(row, after, week_start=week_start, limit=_MARKS)),
    )


def _bounded(row: ScheduleRow, after: datetime) -> ScheduleRow:
    """The same trigger, ended at the horizon if it does not end before."""
    horizon = max(after, row.start_time or after) + _HORIZON
    end = trigger_settings.ends(row.settings)
    if end is not None and end <= horizon:
        return row
    return replace(row, settings={**row.settings, "end_time": horizon.isoformat()})


def row_of(entry: TriggerEntry, *, now: datetime) -> ScheduleRow:
    """A definition as a trigger that was made and enabled at `now`."""
    return ScheduleRow(
        id=0,
        name=entry.name,
        pipeline_uuid=entry.pipeline_uuid,
        schedule_type=ScheduleType(entry.schedule_type),
        status=ScheduleStatus(entry.status),
        created_at=now,
        updated_at=now,
        schedule_interval=entry.schedule_interval,
        timezone=entry.timezone,
        start_time=entry.start_time,
        last_enabled_at=now,
        variables=entry.variables,
        settings=entry.settings,
        sla=entry.sla,
        error=entry.error,
    )
