"""Limits as definitions and operators set them. What a full scope does with a run is `admission`'s to say."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from app import clock
from app.errors import FieldError, InvalidInput, LimitNotFound, ManagedByFile, ScheduleNotFound
from app.models.pipeline import Limits, Pipeline
from app.scheduler.admission import schedule_cap
from app.store import limits, schedules
from app.store.db import Database, Tx
from app.store.limits import LimitRow, Source, Wanted

_NONE = Limits()


class Limiter(Protocol):
    """What of an engine a limit needs."""

    db: Database
    intake: Any
    triggers: Any


def limits_in(pipelines: Iterable[Pipeline | None]) -> Callable[[str], Limits]:
    """What each pipeline's `concurrency_config` says; of an unknown one, and one with a fault (None), nothing."""
    known: Mapping[str, Limits] = {found.uuid: found.limits for found in pipelines if found is not None}
    return lambda uuid: known.get(uuid, _NONE)


def source_of(managed_by: str) -> Source:
    """Who decides the limit of a trigger: its file, or whoever made it over the API."""
    return "file" if managed_by == "file" else "api"


def follow(tx: Tx, pipelines: list[Pipeline], run_limit: int | None, *, now: datetime) -> int:
    """Bring every limit to what the project's files say; how many changed. The locks are taken in key order.

    `run_limit` is the project's own, over all pipelines. A trigger's limit always follows its definition; the
    others that no file mentions are an operator's, and stay.
    """
    of_pipeline = limits_in(pipelines)
    wanted: dict[str, Wanted] = {} if run_limit is None else {"global": Wanted(run_limit, "setting")}
    for pipeline in pipelines:
        if (cap := pipeline.limits.pipeline_run_limit_all_triggers) is not None:
            wanted[f"pipeline:{pipeline.uuid}"] = Wanted(cap, "file")
    for row, _digest in schedules.with_digests(tx):
        if (cap := schedule_cap(row.settings, of_pipeline(row.pipeline_uuid))) is not None:
            wanted[f"schedule:{row.id}"] = Wanted(cap, source_of(row.managed_by))
    return limits.follow(tx, wanted, now=now)


def check_scope(scope: str) -> str:
    """The kind of a scope that a caller names. Raises InvalidInput for one that no run can have."""
    kind, colon, name = scope.partition(":")
    named = bool(name) and (kind != "schedule" or (name.isascii() and name.isdigit() and len(name) <= 18))
    if (kind == "global" and not colon) or (kind in ("pipeline", "schedule", "key") and named):
        return kind
    message = "must be global, pipeline:<uuid>, schedule:<id> or key:<concurrency key>"
    raise InvalidInput(f"scope {message}", errors=[FieldError("scope", message)])


async def put(engine: Limiter, scope: str, cap: int | None) -> LimitRow | None:
    """Set or (None) lift a limit for an operator; a raised one lets waiting runs in at once, a lowered one ends none.

    The limit of a trigger is a setting of the trigger. Raises InvalidInput, ScheduleNotFound, ManagedByFile for
    what a file of the project says, LimitNotFound when there is nothing to lift.
    """
    if check_scope(scope) == "schedule":
        await _put_of_trigger(engine, int(scope.partition(":")[2]), cap)
    else:
        await engine.db.write(_put, scope, cap, now=clock.now())
    engine.intake.has_news()
    return await engine.db.read(limits.get, scope)


def _put(tx: Tx, scope: str, cap: int | None, *, now: datetime) -> None:
    old = limits.get(tx, scope)
    if old is not None and old.source != "api":
        raise ManagedByFile(
            f"the limit of '{scope}' is set in the project's files",
            hint="change concurrency_config in the metadata.yaml of the pipeline or of the project",
        )
    if old is None and cap is None:
        raise LimitNotFound(f"'{scope}' has no limit")
    limits.set_limit(tx, scope, cap, now=now, source="api")


async def _put_of_trigger(engine: Limiter, schedule_id: int, cap: int | None) -> None:
    row = await engine.db.read(schedules.get, schedule_id)
    if row is None:
        raise ScheduleNotFound(f"No trigger has the id {schedule_id}.")
    settings = {**row.settings, "pipeline_run_limit": cap}
    if cap is None:
        if row.settings.get("pipeline_run_limit") is None:
            raise LimitNotFound(f"trigger {schedule_id} has no limit of its own")
        del settings["pipeline_run_limit"]
    await engine.triggers.update(schedule_id, {"settings": settings}, revision=row.revision)
