"""Triggers follow their definitions: what a file or a caller says is put into the database by one function.

`triggers.yaml` is read when it changed. An entry that is gone deactivates its trigger and keeps its history. One
entry that cannot be scheduled is quarantined with its error; it hurts no other.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.errors import InvalidInput
from app.models.pipeline import Pipeline
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.pipelines.catalogue import TriggerEntry
from app.scheduler import timetable
from app.scheduler.admission import schedule_cap
from app.scheduler.tick import dropped, first_look, once_at
from app.store import schedules
from app.store.db import Tx
from app.store.schedules import NewSlot

log = logging.getLogger(__name__)

#: Fields whose change means that the trigger is another one from now on: what was due before is not made up for.
_TIMING = ("schedule_type", "schedule_interval", "timezone", "start_time", "status")


def columns_of(entry: TriggerEntry) -> dict[str, Any]:
    """The columns that a definition decides, whether it came from a file or from a caller."""
    found = {
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
        "digest": entry.digest or None,
        "managed_by": "file" if entry.file else "api",
    }
    # Without one in its definition a trigger keeps the token it was given by the API.
    return found | ({"token_hash": entry.token_hash} if entry.token_hash else {})


@dataclass(frozen=True, slots=True)
class By:
    """Who writes a trigger, when, and by which week."""

    node_id: str
    now: datetime
    week_start: str = "sunday"


def put(tx: Tx, schedule_id: int, values: Mapping[str, Any], *, by: By, new: bool = False) -> None:
    """Make or change a trigger: `values` are columns, those left out stay; what follows from them is written too.

    An edit never fires the past. What was due under the old definition and is undecided gets its rows.
    """
    old = None if new else schedules.lock(tx, schedule_id)
    if old is not None:
        values = {
            **{name: getattr(old, name) for name in (*_TIMING, "name", "pipeline_uuid", "error")},
            **values,
        }
    revision = 1 if old is None else old.revision + 1
    found = {**values, "revision": revision, **_moved(tx, values, old, by)}
    schedules.save(tx, schedule_id, found, new=new, now=by.now)
    if "settings" in values:
        schedules.set_limit(tx, f"schedule:{schedule_id}", schedule_cap(values["settings"]), now=by.now)


def _moved(tx: Tx, values: Mapping[str, Any], old: ScheduleRow | None, by: By) -> dict[str, Any]:
    """last_enabled_at, cursor and next look of a trigger that is new or whose timing changed; else nothing."""
    same = old is not None and old.error is None and not values.get("deleted_at")
    if same and all(values[name] == getattr(old, name) for name in _TIMING):
        return {}
    enabled = old.last_enabled_at if old is not None else None
    active = values["status"] == ScheduleStatus.ACTIVE
    if active:
        enabled = by.now
    decided = None
    if old is not None:
        rows = undecided(old, by, paused=not active)
        schedules.write_slots(tx, old, rows, node_id=by.node_id, now=by.now)
        decided = schedules.last_decided(tx, old.id)
    return {"last_enabled_at": enabled, **_timing(values, old, enabled, decided, by)}


def undecided(old: ScheduleRow, by: By, *, paused: bool) -> tuple[NewSlot, ...]:
    """What was due of a trigger up to the moment of its edit and has no row: it will get no run."""
    fires = old.status is ScheduleStatus.ACTIVE and old.schedule_type is ScheduleType.TIME
    if not fires or old.cursor_at is None:
        return ()
    try:
        table = timetable.parse(old.schedule_interval or "", old.timezone or "UTC", by.week_start)
    except InvalidInput:
        return ()
    if table.kind != "calendar":
        return ()
    if paused:
        return dropped(table, old.cursor_at, by.now, reason="paused", outcome=SlotOutcome.SKIPPED)
    return dropped(table, old.cursor_at, by.now, reason="error" if old.error else "edited")


def _timing(
    values: Mapping[str, Any],
    old: ScheduleRow | None,
    enabled: datetime | None,
    decided: datetime | None,
    by: By,
) -> dict[str, Any]:
    """Cursor and next look of a trigger whose last slot on record is `decided`."""
    cursor = max(filter(None, (decided, old.cursor_at if old else None)), default=None)
    fires = values["status"] == ScheduleStatus.ACTIVE and values["schedule_type"] == ScheduleType.TIME
    if not fires or values["error"] or values.get("deleted_at"):
        return {"next_fire_at": None, "cursor_at": cursor}
    try:
        table = timetable.parse(values["schedule_interval"] or "", values["timezone"] or "UTC", by.week_start)
    except InvalidInput as error:
        return {"next_fire_at": None, "cursor_at": cursor, "error": str(error)}
    if table.kind == "once" and old is not None and _is_spent(old, values):
        # It stays so under its new `last_enabled_at`.
        return {"next_fire_at": None, "cursor_at": max(filter(None, (cursor, enabled)))}
    probe = ScheduleRow(
        id=0,
        name=values["name"],
        pipeline_uuid=values["pipeline_uuid"],
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.ACTIVE,
        created_at=by.now,
        updated_at=by.now,
        start_time=values["start_time"],
        last_enabled_at=enabled,
        cursor_at=decided,
    )
    first = first_look(probe, table, now=by.now)
    return {"next_fire_at": first.next_fire_at, "cursor_at": first.cursor_at}


def _is_spent(old: ScheduleRow, values: Mapping[str, Any]) -> bool:
    """Whether an `@once` trigger has had its slot, and still stands for the same one."""
    same = all(values[name] == getattr(old, name) for name in ("schedule_interval", "start_time"))
    return same and old.cursor_at is not None and old.cursor_at >= once_at(old)


def apply(
    tx: Tx,
    entries: tuple[TriggerEntry, ...],
    ids: Mapping[tuple[str, str], int],
    *,
    unread: Collection[str] = (),
    by: By,
) -> int:
    """Bring the database to what the files say; returns how many triggers changed.

    `ids` are for triggers that are new; `unread` are pipelines whose file cannot be read now: theirs stay. An
    entry takes over the trigger of its name that the API has made, with its id, history and token.
    """
    known = {(row.pipeline_uuid, row.name): (row, digest) for row, digest in schedules.with_digests(tx)}
    count = 0
    for entry in entries:
        key = (entry.pipeline_uuid, entry.name)
        old, digest = known.pop(key, (None, None))
        if old is not None and digest == entry.digest and (old.error is None) == (entry.error is None):
            continue
        schedule_id = old.id if old is not None else ids[key]
        put(tx, schedule_id, columns_of(entry), by=by, new=old is None)
        count += 1
    for old, _digest in known.values():
        if old.managed_by == "file" and old.pipeline_uuid not in unread:
            _retire(tx, old, by)
            count += 1
    return count


def _retire(tx: Tx, old: ScheduleRow, by: By) -> None:
    """Deactivate a trigger whose entry has gone from the file. From now on the API may change or delete it."""
    values = {"status": ScheduleStatus.INACTIVE, "digest": None, "managed_by": "api"}
    put(tx, old.id, values, by=by)
    log.info(
        "trigger '%s' of pipeline '%s' is no longer in its file: deactivated", old.name, old.pipeline_uuid
    )


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
