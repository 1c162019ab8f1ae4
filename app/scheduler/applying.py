"""Bring the triggers to their files now, and say what that changes: asked by somebody, not by a timer.

A running service follows its files by itself. This is for a deployment that wants to know, for `prune`, and for a
database that no service serves at the moment.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from app import clock
from app.models.rows import ScheduleRow
from app.pipelines.catalogue import Catalogue
from app.pipelines.triggers import TriggerEntry
from app.scheduler import limiting, sync
from app.scheduler.catalogues import fresh_catalogue
from app.scheduler.triggers import Triggers
from app.settings import Settings
from app.store import schedules, slots
from app.store.db import Database, Tx
from app.store.ids import Ids
from app.store.sql import lock_named

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Named:
    """A trigger that the files change; without an id it is not there yet."""

    id: int | None
    pipeline_uuid: str
    name: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What following the files has changed, or would change."""

    dry_run: bool
    created: tuple[Named, ...] = ()
    changed: tuple[Named, ...] = ()
    deactivated: tuple[Named, ...] = ()
    deleted: tuple[Named, ...] = ()
    #: every trigger of the files that has a fault, whether it changes now or not
    quarantined: tuple[Named, ...] = ()


def planned(
    known: Sequence[tuple[ScheduleRow, str | None]],
    entries: Iterable[TriggerEntry],
    unread: Collection[str] = (),
    *,
    prune: bool = False,
) -> Applied:
    """What :func:`app.scheduler.sync.apply` would do with these triggers and entries, and a prune after it. Pure."""
    left = {(row.pipeline_uuid, row.name): (row, digest) for row, digest in known}
    created, changed, quarantined = [], [], []
    for entry in entries:
        row, digest = left.pop((entry.pipeline_uuid, entry.name), (None, None))
        named = Named(row.id if row else None, entry.pipeline_uuid, entry.name, entry.error)
        if row is None:
            created.append(named)
        elif digest != entry.digest or (row.error is None) != (entry.error is None):
            changed.append(named)
        if entry.error is not None:
            quarantined.append(named)
    gone = [r for r, _d in left.values() if r.managed_by == "file" and r.pipeline_uuid not in unread]
    before = [row for row, digest in left.values() if digest == sync.GONE]
    return Applied(
        dry_run=True,
        created=tuple(created),
        changed=tuple(changed),
        deactivated=() if prune else tuple(_named(row) for row in gone),
        deleted=tuple(_named(row) for row in (*before, *gone)) if prune else (),
        quarantined=tuple(quarantined),
    )


def _named(row: ScheduleRow) -> Named:
    return Named(row.id, row.pipeline_uuid, row.name)


async def apply(
    db: Database,
    settings: Settings,
    triggers: Triggers,
    follow: Callable[[], Awaitable[object]],
    *,
    prune: bool,
    dry_run: bool,
) -> Applied:
    """Bring the database to the files with `follow`, then delete what has no entry any more if `prune` says so."""
    files = await asyncio.to_thread(fresh_catalogue, settings.project, settings.env)
    known = await db.read(schedules.with_digests)
    plan = planned(known, files.triggers(), files.unread_triggers(), prune=prune)
    if dry_run:
        return plan
    await follow()
    deleted = await triggers.prune() if prune else []
    ids = {(row.pipeline_uuid, row.name): row.id for row, _ in await db.read(schedules.with_digests)}

    def with_ids(found: Iterable[Named]) -> tuple[Named, ...]:
        return tuple(replace(one, id=ids.get((one.pipeline_uuid, one.name))) for one in found)

    return replace(
        plan,
        dry_run=False,
        created=with_ids(plan.created),
        deleted=tuple(_named(row) for row in deleted),
        quarantined=with_ids(plan.quarantined),
    )


async def bring(db: Database, catalogue: Catalogue, schedule_ids: Ids, node_id: str) -> int:
    """Bring triggers and limits in the database to what the catalogue says; how many triggers changed.

    Raises Clash or KeyError when a replica was faster between the look and the lock: look again.
    """
    entries, unread = catalogue.triggers(), catalogue.unread_triggers()
    missing = sync.new_keys(await db.read(schedules.with_digests), entries)
    ids = dict(zip(missing, await schedule_ids.take(len(missing)), strict=True)) if missing else {}
    pipelines = [entry.pipeline for entry in catalogue.entries() if entry.pipeline is not None]

    def write(tx: Tx) -> int:
        lock_named(tx, "triggers")  # replicas read the same files: one writes, the next finds it done
        now = clock.now()
        by = sync.By(node_id, now, catalogue.project.week_start, limiting.limits_in(pipelines))
        slots.look_again(tx, now=now)  # a pipeline may be here now that was not
        changed = sync.apply(tx, entries, ids, unread=unread, by=by)
        limiting.follow(tx, pipelines, catalogue.project.run_limit, now=now)
        return changed

    return await db.write(write)
