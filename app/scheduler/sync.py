"""Triggers follow their files: what `triggers.yaml` says is put into the database when it changed.

An entry that is gone deactivates its trigger and keeps its history. One entry that cannot be scheduled is
quarantined with its error; it hurts no other.
"""

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from app.errors import InvalidInput
from app.models.pipeline import Pipeline
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines.catalogue import TriggerEntry
from app.scheduler import timetable
from app.scheduler.admission import schedule_cap
from app.scheduler.tick import first_look
from app.store import schedules
from app.store.db import Tx

log = logging.getLogger(__name__)

#: Fields whose change means that the trigger is another one from now on: what was due before is not made up for.
_TIMING = ("schedule_type", "schedule_interval", "timezone", "start_time", "status")


def columns_of(entry: TriggerEntry) -> dict[str, Any]:
    """The columns that an entry decides."""
    return {
        "name": entry.name,
        "pipeline_uuid": entry.pipeline_uuid,
        "description": entry.description,
        "schedule_type": entry.schedule_type,
        "schedule_interval": entry.schedule_interval,
        "timezone": entry.timezone,
        "status": entry.status,
        "start_time": entry.start_time,
        "variables": dict(entry.variables),
        "settings": dict(entry.settings),
        "sla": entry.sla,
        "tags": list(entry.tags),
        "error": entry.error,
        "digest": entry.digest,
        "managed_by": "file",
    }


def changed(
    values: Mapping[str, Any], old: ScheduleRow | None, *, now: datetime, week_start: str
) -> dict[str, Any]:
    """`values` with what follows from them: revision, last_enabled_at, cursor, next look."""
    moved = (
        old is None or any(values[name] != getattr(old, name) for name in _TIMING) or old.error is not None
    )
    active = values["status"] == ScheduleStatus.ACTIVE
    enabled = old.last_enabled_at if old is not None else None
    if active and (old is None or old.status is not ScheduleStatus.ACTIVE or moved):
        enabled = now
    found = {**values, "last_enabled_at": enabled, "revision": 1 if old is None else old.revision + 1}
    if moved:
        found |= _timing(values, old, enabled=enabled, now=now, week_start=week_start)
    return found


def _timing(
    values: Mapping[str, Any],
    old: ScheduleRow | None,
    *,
    enabled: datetime | None,
    now: datetime,
    week_start: str,
) -> dict[str, Any]:
    """Cursor and next look of a trigger that is new or whose timing changed."""
    cursor = old.cursor_at if old is not None else None
    fires = values["status"] == ScheduleStatus.ACTIVE and values["schedule_type"] == ScheduleType.TIME
    if not fires or values["error"] or not values["schedule_interval"]:
        return {"next_fire_at": None, "cursor_at": cursor}
    probe = ScheduleRow(
        id=0,
        name=values["name"],
        pipeline_uuid=values["pipeline_uuid"],
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.ACTIVE,
        created_at=now,
        updated_at=now,
        start_time=values["start_time"],
        last_enabled_at=enabled,
        cursor_at=cursor,
    )
    try:
        table = timetable.parse(values["schedule_interval"], values["timezone"] or "UTC", week_start)
    except InvalidInput as error:
        return {"next_fire_at": None, "cursor_at": cursor, "error": str(error)}
    first = first_look(probe, table, now=now)
    another = old is not None and old.schedule_interval != values["schedule_interval"]
    # A new `@once` has its own single slot; otherwise the cursor never goes back.
    return {
        "next_fire_at": first.next_fire_at,
        "cursor_at": None if another and table.kind == "once" else first.cursor_at,
    }


def apply(
    tx: Tx,
    entries: tuple[TriggerEntry, ...],
    ids: Mapping[tuple[str, str], int],
    *,
    unread: Collection[str] = (),
    now: datetime,
    week_start: str,
) -> int:
    """Bring the database to what the files say; returns how many triggers changed.

    `ids` are for triggers that are new; `unread` are pipelines whose file cannot be read now: theirs stay.
    """
    known = {(row.pipeline_uuid, row.name): (row, digest) for row, digest in schedules.from_files(tx)}
    count = 0
    for entry in entries:
        key = (entry.pipeline_uuid, entry.name)
        old, digest = known.pop(key, (None, None))
        if old is not None and digest == entry.digest and (old.error is None) == (entry.error is None):
            continue
        values = changed(columns_of(entry), old, now=now, week_start=week_start)
        schedule_id = old.id if old is not None else ids[key]
        schedules.save(tx, schedule_id, values, new=old is None, now=now)
        schedules.set_limit(tx, f"schedule:{schedule_id}", schedule_cap(entry.settings), now=now)
        count += 1
    for old, _digest in known.values():
        if old.pipeline_uuid not in unread:
            count += _retire(tx, old, now=now)
    return count


def _retire(tx: Tx, old: ScheduleRow, *, now: datetime) -> int:
    """Deactivate a trigger whose entry has gone from the file."""
    if old.status is ScheduleStatus.INACTIVE:
        return 0
    values = {
        "status": ScheduleStatus.INACTIVE,
        "next_fire_at": None,
        "digest": None,
        "revision": old.revision + 1,
    }
    schedules.save(tx, old.id, values, new=False, now=now)
    log.info(
        "trigger '%s' of pipeline '%s' is no longer in its file: deactivated", old.name, old.pipeline_uuid
    )
    return 1


def new_keys(
    known: list[tuple[ScheduleRow, str | None]], entries: tuple[TriggerEntry, ...]
) -> list[tuple[str, str]]:
    """The triggers of the files that the database has no row for."""
    have = {(row.pipeline_uuid, row.name) for row, _ in known}
    return [key for entry in entries if (key := (entry.pipeline_uuid, entry.name)) not in have]


def apply_pipeline_limits(tx: Tx, pipelines: list[Pipeline], *, now: datetime) -> None:
    """Keep the limits over all triggers of a pipeline (`pipeline_run_limit_all_triggers`) as the files say."""
    wanted = {f"pipeline:{p.uuid}": p.limits.pipeline_run_limit_all_triggers for p in pipelines}
    have = schedules.limits(tx, "pipeline:")
    for scope in sorted(wanted.keys() | have.keys()):
        if wanted.get(scope) != have.get(scope):
            schedules.set_limit(tx, scope, wanted.get(scope), now=now)
