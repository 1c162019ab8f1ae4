"""What blocks find in **kwargs, and what may be a variable at all. Pure.

Order, later wins (as in Mage): pipeline < trigger < run; event variables fill only missing names; then
the built-ins overwrite.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from app.errors import FieldError, InvalidInput
from app.executors.child import references
from app.models.pipeline import Pipeline
from app.models.rows import RunRow, ScheduleRow
from app.models.states import ScheduleStatus, ScheduleType
from app.scheduler.tables_of import table_of
from app.scheduler.timetable import Timetable

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
_INT64 = 2**63


def check(variables: Mapping[str, Any], where: str = "/variables") -> dict[str, Any]:
    """The variables as they will be stored. Raises InvalidInput for what no database or JSON can carry."""
    _check_value(variables, where, 0)
    try:
        size = len(orjson.dumps(variables))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise _refused(where, f"not JSON: {error}") from error
    if size > MAX_BYTES:
        raise _refused(
            where, f"{size} bytes; at most {MAX_BYTES} are kept with a run", "pass a reference to the data"
        )
    return dict(variables)


def _check_value(value: Any, where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _refused(where, f"nested deeper than {MAX_DEPTH}")
    match value:
        case str():
            _check_text(value, where)
        case bool() | None:
            pass
        case int() if not -_INT64 <= value < _INT64:
            raise _refused(where, "integers must fit in 64 bits", "send it as text")
        case float() if not math.isfinite(value):
            raise _refused(where, "NaN and infinity have no JSON form", "send null or text")
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise _refused(where, "keys must be text")
                _check_text(key, where)
                _check_value(item, f"{where}/{key.replace('~', '~0').replace('/', '~1')}", depth + 1)
        case list() | tuple():
            for index, item in enumerate(value):
                _check_value(item, f"{where}/{index}", depth + 1)


def _check_text(text: str, where: str) -> None:
    if "\0" in text:
        raise _refused(where, "the character U+0000 cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(where.encode("utf-8", "replace").decode(), "a lone surrogate is not text") from error


def _refused(where: str, message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(f"{where}: {message}", hint=hint, errors=[FieldError(where, message)])


def merge(pipeline: Mapping[str, Any], trigger: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """The variables stored with a run: trigger's, overwritten by the run's own; the pipeline's stay in its version.

    >>> merge({"a": 1}, {"b": 2}, {"b": 3})
    {'b': 3}
    """
    return {**trigger, **run}


def for_blocks(pipeline: Pipeline, run: RunRow, *, env: str) -> tuple[dict[str, Any], list[str]]:
    """(kwargs, names of those that are ISO datetimes) for every block of a run."""
    trigger = run.options.get("trigger") or {}
    zone = ZoneInfo(trigger.get("timezone") or "UTC")
    local = run.execution_date.astimezone(zone)
    values: dict[str, Any] = {**pipeline.variables, **run.variables}
    values = {**run.event_variables, **values}
    event = {**_mapping(run.variables.get("event")), **run.event_variables}
    if secret := [n for n, v in pipeline.variables.items() if n not in run.variables and references.has(v)]:
        values[references.KEY] = secret  # the worker puts the values in: they are written down nowhere
    values |= {
        "execution_date": local.isoformat(),
        "ds": f"{local:%Y-%m-%d}",
        "hr": f"{local:%H}",
        "env": env,
        "event": event,
        "execution_partition": partition(run, local),
        "pipeline_run_id": run.id,
        "trigger_name": trigger.get("name"),
    }
    names = ["execution_date"]
    for name, value in _interval(run, trigger, zone).items():
        values[name] = value.isoformat() if isinstance(value, datetime) else value
        if isinstance(value, datetime):
            names.append(name)
    return values, names


def partition(run: RunRow, local: datetime) -> str:
    """Mage's `execution_partition`: `<trigger id>/<stamp>`; runs without a trigger have their own id for it."""
    scope = run.pipeline_schedule_id if run.pipeline_schedule_id is not None else f"run-{run.id}"
    return f"{scope}/{local:%Y%m%dT%H%M%S}"


#: Settings that decide where the slots of an interval lie.
_PLACING = ("dst_gap", "dst_overlap", "landing_time_enabled")


def of_trigger(schedule: ScheduleRow, week_start: str) -> dict[str, Any]:
    """What of a trigger is frozen with a run: its name, and all that its interval is computed from."""
    placing = {key: schedule.settings[key] for key in _PLACING if schedule.settings.get(key)}
    anchors = {"start_time": schedule.start_time, "enabled_at": schedule.last_enabled_at}
    return {
        "name": schedule.name,
        "interval": schedule.schedule_interval,
        "timezone": schedule.timezone or "UTC",
        **({"week_start": week_start} if week_start != "sunday" else {}),
        **({"settings": placing} if placing else {}),
        **{name: at.isoformat() for name, at in anchors.items() if at and schedule.schedule_interval},
    }


def _interval(run: RunRow, trigger: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """The four `interval_*` of a time trigger; none for other runs."""
    if not trigger.get("interval"):
        return {}
    start, end, seconds, previous = _table(run, trigger).interval_of(run.execution_date)
    return {
        "interval_start_datetime": start.astimezone(zone),
        "interval_end_datetime": end.astimezone(zone) if end else None,
        "interval_seconds": seconds,
        "interval_start_datetime_previous": previous.astimezone(zone) if previous else None,
    }


def _table(run: RunRow, trigger: Mapping[str, Any]) -> Timetable:
    """The timetable that the trigger had when the run was made."""
    frozen = ScheduleRow(
        id=run.pipeline_schedule_id or 0,
        name=trigger.get("name") or "",
        pipeline_uuid=run.pipeline_uuid,
        schedule_type=ScheduleType.TIME,
        status=ScheduleStatus.ACTIVE,
        created_at=run.created_at,
        updated_at=run.created_at,
        schedule_interval=trigger["interval"],
        timezone=trigger.get("timezone"),
        start_time=_moment(trigger.get("start_time")),
        last_enabled_at=_moment(trigger.get("enabled_at")),
        settings=_mapping(trigger.get("settings")),
    )
    return table_of(frozen, week_start=trigger.get("week_start", "sunday"))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
