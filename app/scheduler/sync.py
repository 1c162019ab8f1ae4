"""Triggers follow their definitions: what a file or a caller says is put into the database by one function.

`triggers.yaml` is read when it changed. An entry that is gone deactivates its trigger and keeps its history. One
entry that cannot be scheduled is quarantined with its error; it hurts no other.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.errors import InvalidInput
from app.models.pipeline import Limits
from app.models.rows import ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType, SlotOutcome
from app.pipelines import trigger_settings
from app.pipelines.catalogue import TriggerEntry
from app.scheduler import limiting
from app.scheduler.admission import schedule_cap
from app.scheduler.catchup import dropped
from app.scheduler.every import PREFIX
from app.scheduler.tables_of import once_at, table_of
from app.scheduler.tick import first_look
from app.store import limits, schedules, slots
from app.store.db import Tx
from app.store.slots import NewSlot

log = logging.getLogger(__name__)

#: Fields whose change means that the trigger is another one from now on: what was due before is not made up for.
_TIMING = ("schedule_type", "schedule_interval", "timezone", "start_time", "status")
#: In the place of a digest: its entry has gone from its file, and nobody has changed it since.
GONE = "gone"


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
    week_start: str
    #: what a pipeline's `concurrency_config` says: without it a trigger would lose its limit
    limits: Callable[[str], Limits]


def put(
    tx: Tx,
    schedule_id: int,
    values: Mapping[str, Any],
    *,
    by: By,
    new: bool = False,
    missed: str | None = None,
    anew: bool = False,
) -> None:
    """Make or change a trigger: `values` are columns, those left out stay; what follows from them is written too.

    An edit never fires the past. What was due under the old definition and is undecided gets its rows; `missed`
    (latest or all) leaves it to the tick instead. `anew`: it is looked at as if its timing had changed.
    """
    old = None if new else schedules.lock(tx, schedule_id)
    if old is not None:
        kept = (*_TIMING, "settings", "name", "pipeline_uuid", "error")
        values = {**{name: getattr(old, name) for name in kept}, **values}
    revision = 1 if old is None else old.revision + 1
    moved = _moved(tx, {**values, "id": schedule_id}, old, by, missed=missed, anew=anew)
    found = {**values, "revision": revision, **moved}
    schedules.save(tx, schedule_id, found, new=new, now=by.now)
    if "settings" in values:
        cap = schedule_cap(values["settings"], by.limits(str(values.get("pipeline_uuid"))))
        source = limiting.source_of(values.get("managed_by") or (old.managed_by if old else "api"))
        limits.set_limit(tx, f"schedule:{schedule_id}", cap, source=source, now=by.now)


def take_up(tx: Tx, seen: Sequence[ScheduleRow], *, by: By) -> list[ScheduleRow]:
    """Let triggers that were set aside fire again; what was due meanwhile is on record as missed. Returns which.

    One that the service has written since it was `seen` is left out: a replica, or somebody, was faster.
    """
    ours = {}
    for row in sorted(seen, key=lambda row: row.id):  # locked in the order of a tick
        old = schedules.lock(tx, row.id)
        if old is not None and old.revision == row.revision:
            ours[row.id] = row
    for schedule_id in sorted(ours, key=str):  # the order of their limits' scopes
        put(tx, schedule_id, {"error": None}, by=by, anew=True)
    return list(ours.values())


def _moved(
    tx: Tx,
    values: Mapping[str, Any],
    old: ScheduleRow | None,
    by: By,
    *,
    missed: str | None,
    anew: bool,
) -> dict[str, Any]:
    """last_enabled_at, cursor and next look of a trigger that is new or whose timing changed; else nothing."""
    if old is not None and not anew and _is_same(old, values):
        return {}
    enabled = old.last_enabled_at if old is not None else None
    active = values["status"] == ScheduleStatus.ACTIVE
    turned_on = active and (old is None or old.status is not ScheduleStatus.ACTIVE)
    if active and not (missed and _counts_from_start(values)):
        enabled = by.now
    if old is not None and missed and old.cursor_at is not None and _has_slots(values):
        asked = {"missed_policy": missed, "missed_until": by.now}
        return {"last_enabled_at": enabled, "cursor_at": old.cursor_at, "next_fire_at": by.now, **asked}
    decided = None
    if old is not None:
        rows = undecided(schedules.as_said(tx, old), by, paused=not active)
        slots.write_slots(tx, old, rows, node_id=by.node_id, now=by.now)
        decided = slots.last_decided(tx, old.id)
    timing = _timing(values, old, enabled, decided, by, turned_on=turned_on)
    return {"last_enabled_at": enabled, "missed_policy": None, "missed_until": None, **timing}


def _is_same(old: ScheduleRow, values: Mapping[str, Any]) -> bool:
    """Whether a trigger fires as before."""
    if old.error is not None or values.get("deleted_at"):
        return False
    settings = values["settings"]
    return all(values[name] == getattr(old, name) for name in _TIMING) and all(
        settings.get(key) == old.settings.get(key) for key in trigger_settings.TIMING
    )


def _has_slots(values: Mapping[str, Any]) -> bool:
    """Whether slots come due one after the other, and so may be missed."""
    interval = str(values["schedule_interval"] or "").strip().lower()
    return values["schedule_type"] == ScheduleType.TIME and interval not in ("@once", "@always_on")


def _counts_from_start(values: Mapping[str, Any]) -> bool:
    """Whether the slots are counted from the moment it was enabled: that must stay while some are made up for."""
    interval = str(values["schedule_interval"] or "").lstrip().lower()
    return interval.startswith(PREFIX) and values["start_time"] is None


def undecided(old: ScheduleRow, by: By, *, paused: bool) -> tuple[NewSlot, ...]:
    """What was due of a trigger up to the moment of its edit and has no row: it will get no run.

    While it was inactive, or is made so, its slots are skipped; else they are missed.
    """
    if old.schedule_type is not ScheduleType.TIME or old.cursor_at is None:
        return ()
    try:
        table = table_of(old, week_start=by.week_start)
        end = trigger_settings.ends(trigger_settings.check(old.settings))
    except InvalidInput:
        return ()
    if table.kind != "calendar":
        return ()
    until = by.now if end is None else min(end, by.now)
    if paused or old.status is not ScheduleStatus.ACTIVE:
        return dropped(table, old.cursor_at, until, reason="paused", outcome=SlotOutcome.SKIPPED)
    return dropped(table, old.cursor_at, until, reason="error" if old.error else "edited")


def _timing(
    values: Mapping[str, Any],
    old: ScheduleRow | None,
    enabled: datetime | None,
    decided: datetime | None,
    by: By,
    *,
    turned_on: bool,
) -> dict[str, Any]:
    """Cursor and next look of a trigger whose last slot on record is `decided`."""
    cursor = max(filter(None, (decided, old.cursor_at if old else None)), default=None)
    if cursor is not None and _has_slots(values):
        cursor = max(cursor, by.now)  # what was due up to now was so under the old definition
    fires = values["status"] == ScheduleStatus.ACTIVE and values["schedule_type"] == ScheduleType.TIME
    if values.get("deleted_at") or values["error"] or not fires:
        return {"next_fire_at": None, "cursor_at": cursor}
    probe = ScheduleRow(
        id=values["id"],  # its jitter depends on it
        name=values["name"],
        pipeline_uuid=values["pipeline_uuid"],
        schedule_type=ScheduleType.TIME,
        schedule_interval=values["schedule_interval"],
        timezone=values["timezone"],
        status=ScheduleStatus.ACTIVE,
        created_at=by.now,
        updated_at=by.now,
        start_time=values["start_time"],
        settings=values["settings"],
        last_enabled_at=enabled,
        cursor_at=decided,
    )
    try:
        table = table_of(probe, week_start=by.week_start)
        trigger_settings.check(probe.settings)
    except InvalidInput as error:  # a hand has broken it: the tick sets it aside, and looks at it again
        return {"next_fire_at": by.now, "cursor_at": cursor, "error": str(error)}
    if table.kind == "once" and old is not None and _is_spent(old, values):
        # It stays so under its new `last_enabled_at`.
        return {"next_fire_at": None, "cursor_at": max(filter(None, (cursor, enabled)))}
    first = first_look(probe, table, now=by.now, enabled=turned_on)
    found = {"next_fire_at": first.next_fire_at, "cursor_at": first.cursor_at}
    if first.initial:
        return {**found, "missed_policy": "latest", "missed_until": by.now}
    return found


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
    values = {"status": ScheduleStatus.INACTIVE, "digest": GONE, "managed_by": "api"}
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
