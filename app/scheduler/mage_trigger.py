"""One trigger of Mage's database in our words: what stays as it is, what has to be said otherwise. Pure.

Mage: intervals are UTC, weeks begin on Monday, surplus runs wait. Where we do otherwise by default the imported
trigger says it outright, so that it goes on doing what it did.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.errors import InvalidInput
from app.models.pipeline import Pipeline
from app.models.states import ScheduleStatus, ScheduleType
from app.pipelines.project import ProjectConfig
from app.pipelines.triggers import MAX_NAME, TriggerEntry, TriggerRules, check_trigger
from app.scheduler import catchup, variables
from app.scheduler.mage_room import Refused
from app.store.mage import MageTrigger

_MONDAY = "0 0 * * 1"
_LANDING = ("@hourly", "@daily", "@weekly", "@monthly")
_REACHED = "on_pipeline_run_limit_reached"
_PROBE = {"name": "probe", "schedule_type": "api", "status": "inactive"}


@dataclass(frozen=True, slots=True)
class Translated:
    """A trigger as it will be here. `changes`: what is not as in Mage; `remarks`: what is, and yet worth a word."""

    entry: TriggerEntry
    changes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def fingerprint(row: MageTrigger) -> str:
    """Changes exactly when the row in Mage's database does."""
    return hashlib.sha256(json.dumps(asdict(row), sort_keys=True, default=str).encode()).hexdigest()


def proper_name(row: MageTrigger) -> str:
    """The row's name as triggers are named here; Mage takes any."""
    name = row.name.strip()[:MAX_NAME]
    return name if any(character.isalnum() for character in name) else f"trigger {row.id}"


def translate(row: MageTrigger, name: str, pipeline: Pipeline | None, project: ProjectConfig) -> Translated:
    """The trigger called `name` that does what the row did. Raises Refused.

    One that would do something else than in Mage is inactive, with the reason among the changes.
    """
    _check_storable(row, name)
    changes: list[str] = []
    doubts: list[str] = []
    values = {
        "name": name,
        "schedule_type": row.schedule_type,
        "status": row.status,
        "description": row.description,
        "variables": dict(row.variables or {}),
        "sla": row.sla,
        "tags": list(row.tags),
        "settings": _settings(row, pipeline, project, changes, doubts),
    }
    if row.schedule_type == "time":
        values |= _timing(row, project, changes)
        if row.has_run and row.status == "active":
            doubts.append("it has had its one run in Mage")
    else:
        values["token"] = row.token
    entry = _entry(row.pipeline_uuid, values, project, changes, doubts)
    if doubts and row.status == "active":
        entry = replace(entry, status=ScheduleStatus.INACTIVE)
        doubts = [f"inactive: {'; '.join(doubts)}"]
    return Translated(entry, (*changes, *doubts), tuple(_remarks(row, pipeline)))


def token_hash(row: MageTrigger, project: ProjectConfig) -> str | None:
    """The hash of the row's token as every trigger's is kept; None when it has none that may be kept."""
    if not row.token or row.schedule_type != "api":
        return None
    try:
        return _check(row.pipeline_uuid, {**_PROBE, "token": row.token}, project).token_hash
    except InvalidInput:
        return None


def _check_storable(row: MageTrigger, name: str) -> None:
    if row.faults:
        raise Refused("; ".join(row.faults))
    for what in ("variables", "settings"):
        if not isinstance(getattr(row, what) or {}, Mapping):
            raise Refused(f"its {what} are no JSON object")
    texts = {"name": name, "description": row.description, "interval": row.schedule_interval}
    try:
        variables.check(row.variables or {})
        variables.check(row.settings or {}, "/settings")
        variables.check({**texts, "tags": list(row.tags)}, "")
    except InvalidInput as error:
        raise Refused(f"it cannot be stored: {error.detail}") from error


def _timing(row: MageTrigger, project: ProjectConfig, changes: list[str]) -> dict[str, Any]:
    interval = row.schedule_interval
    lands = (row.settings or {}).get("landing_time_enabled") and row.start_time  # then that tells the weekday
    if interval == "@weekly" and project.week_start == "sunday" and not lands:
        changes.append(f"schedule_interval '{_MONDAY}' for @weekly, which begins on Monday in Mage")
        interval = _MONDAY
    start = row.start_time.isoformat() if row.start_time else None
    return {"schedule_interval": interval, "start_time": start, "timezone": "UTC"}


def _settings(
    row: MageTrigger,
    pipeline: Pipeline | None,
    project: ProjectConfig,
    changes: list[str],
    doubts: list[str],
) -> dict[str, Any]:
    """The settings that may be kept, one by one; what is left out is a change, or a doubt if it mattered."""
    kept: dict[str, Any] = {}
    for key, value in (row.settings or {}).items():
        if not value or key == "invalid_schedule_interval":
            continue
        if why := _unheeded(row, key):
            changes.append(f"{key} left out: {why}")
        elif key == "landing_time_enabled" and row.start_time is None:
            doubts.append(f"{key} left out: no start_time says when its runs are to be over")
        elif error := _fault(row.pipeline_uuid, {"settings": {key: value}}, project):
            doubts.append(f"{key} left out: {error}")
        else:
            kept[key] = value
    if "pipeline_run_limit" in kept and _REACHED not in kept:
        kept[_REACHED] = pipeline.limits.on_pipeline_run_limit_reached if pipeline else "wait"
        changes.append(f"{_REACHED}: {kept[_REACHED]} said outright, since it is what Mage does")
    return kept


def _unheeded(row: MageTrigger, key: str) -> str | None:
    """Why a setting that is set does nothing for this trigger in Mage, or nothing any more."""
    if key == "create_initial_pipeline_run":
        return "it is for the moment a trigger is enabled, which has been in Mage"
    if key == "landing_time_enabled" and (
        row.schedule_type != "time" or row.schedule_interval not in _LANDING
    ):
        return "Mage heeds it for hourly to monthly triggers only"
    if key == "skip_if_previous_running" and row.schedule_type != "time":
        return "Mage heeds it for time triggers only"
    return None


def _check(pipeline_uuid: str, values: Mapping[str, Any], project: ProjectConfig) -> TriggerEntry:
    return check_trigger(pipeline_uuid, values, TriggerRules(project, check_interval=catchup.judge))


def _fault(pipeline_uuid: str, values: Mapping[str, Any], project: ProjectConfig) -> str | None:
    """What the rules of triggers say against these values."""
    try:
        _check(pipeline_uuid, {**_PROBE, **values}, project)
    except InvalidInput as error:
        return error.errors[0].message
    return None


def _entry(
    pipeline_uuid: str,
    values: Mapping[str, Any],
    project: ProjectConfig,
    changes: list[str],
    doubts: list[str],
) -> TriggerEntry:
    """The trigger by the same rules as any other; what they refuse is left out.

    A time trigger without a usable interval keeps the text and is set aside with its error.
    """
    try:
        return _check(pipeline_uuid, values, project)
    except InvalidInput as error:
        faults = {fault.pointer.split("/")[1]: fault.message for fault in error.errors}
    left = {key: value for key, value in values.items() if key not in faults}
    interval = faults.pop("schedule_interval", None)
    for key, message in faults.items():
        (changes if key == "token" else doubts).append(f"{key} left out: {message}")
    if interval is None:
        return _check(pipeline_uuid, left, project)
    doubts.append(interval)
    for key in ("start_time", "timezone"):
        left.pop(key, None)
    entry = _check(pipeline_uuid, {**left, "schedule_type": "api"}, project)
    text = values["schedule_interval"]
    return replace(entry, schedule_type=ScheduleType.TIME, schedule_interval=text, error=interval)


def _remarks(row: MageTrigger, pipeline: Pipeline | None) -> list[str]:
    found = []
    if pipeline is None:
        found.append("its pipeline is invalid at present, see `runwright validate`")
    if row.schedule_type == "api" and row.status != "active":
        found.append("inactive: calls are answered 404, where Mage would set it active")
    if row.schedule_type == "api" and not row.token:
        found.append("it has no token in Mage: make one with rotate_token")
    return found
