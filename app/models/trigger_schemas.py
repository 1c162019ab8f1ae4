"""The bodies of triggers, ours and those of callers written for Mage."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue

from app.models.settings_schema import SETTINGS_SCHEMA
from app.models.states import (
    RunStatus,
    ScheduleStatus,
    ScheduleType,
    SlotOutcome,
)
from app.models.wire import In, Out, Time


def _kind(value: object) -> object:
    if value == ScheduleType.EVENT:
        raise ValueError("event triggers are not supported yet")
    return value


ScheduleKind = Annotated[Literal["time", "api"], BeforeValidator(_kind)]
Switch = Literal["active", "inactive"]
Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=70)]], Field(max_length=100, examples=[["nightly"]])
]
_INTERVAL: Final = (
    "one of @once, @hourly, @daily, @weekly, @monthly, @always_on, @every 90s, or a cron expression"
)
_SETTINGS: Final = "the `settings` of an entry of triggers.yaml, such as pipeline_run_limit"


class _Definition(In):
    """What a caller may say of a trigger, at birth and later."""

    description: str | None = Field(default=None, max_length=10_000)
    schedule_interval: str | None = Field(
        default=None, max_length=255, description=_INTERVAL, examples=["0 6 * * mon-fri"]
    )
    timezone: str | None = Field(
        default=None, max_length=100, description="IANA name; the project's without it, else UTC"
    )
    start_time: Time | None = Field(default=None, description="no slot before it")
    sla: int | None = Field(default=None, ge=0, le=366 * 86_400, description="seconds; 0 or null is none")


class ScheduleCreate(_Definition):
    """A new trigger. One of type time needs a schedule_interval; one of type api has none and gets a token."""

    name: str = Field(min_length=1, max_length=255, description="unique among the pipeline's triggers")
    pipeline_uuid: str = Field(min_length=1, max_length=255)
    schedule_type: ScheduleKind
    status: Switch = "inactive"
    variables: dict[str, JsonValue] = Field(default_factory=dict, description="overwrite the pipeline's")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description=_SETTINGS, json_schema_extra=SETTINGS_SCHEMA
    )
    tags: Tags = Field(default_factory=list)


class SchedulePatch(_Definition):
    """What is to change; fields that are left out stay. Variables, settings and tags are replaced as a whole."""

    name: str = Field(default="", min_length=1, max_length=255)
    schedule_type: ScheduleKind = "time"
    status: Switch = "inactive"
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description=_SETTINGS, json_schema_extra=SETTINGS_SCHEMA
    )
    tags: Tags = Field(default_factory=list)


class TriggerNow(In):
    """What a run of a trigger, started now, is asked to do. Every field may be left out."""

    variables: dict[str, JsonValue] = Field(
        default_factory=dict, description="runtime variables; they win over the trigger's and the pipeline's"
    )
    execution_date: Time | None = Field(default=None, description="logical time; now if left out")


class PipelineSchedule(Out):
    """A trigger. One with an `error` is quarantined: it fires again when its definition has been mended."""

    id: int
    name: str
    description: str | None
    pipeline_uuid: str
    schedule_type: ScheduleType
    schedule_interval: str | None
    timezone: str | None
    status: ScheduleStatus
    start_time: datetime | None
    last_enabled_at: datetime | None
    next_execution_date: datetime | None = Field(description="the slot it waits for")
    starts_at: datetime | None = Field(
        default=None, description="when the run of that slot starts, with jitter and landing time"
    )
    ended: bool = Field(default=False, description="no slot comes any more: its end_time is past")
    variables: Mapping[str, Any]
    sla: int | None
    settings: Mapping[str, Any]
    tags: list[str]
    error: str | None
    managed_by: Literal["file", "api"] = Field(
        description="file: it is defined in triggers.yaml and changed there"
    )
    revision: int = Field(description="the ETag; grows with every change of the definition")
    created_at: datetime
    updated_at: datetime


class NewSchedule(PipelineSchedule):
    """A trigger that was just made."""

    token: str | None = Field(
        default=None, description="of an API trigger; shown this once, only its hash is kept"
    )


class Token(Out):
    """The new token of an API trigger."""

    token: str = Field(description="shown this once, only its hash is kept")


class Slot(Out):
    """What became of a due slot, or of a stretch of `count` slots that ended at `until`."""

    execution_date: datetime
    outcome: SlotOutcome
    reason: str | None
    pipeline_run_id: int | None
    until: datetime | None
    count: int
    decided_at: datetime
    detail: Mapping[str, Any] | None = Field(default=None, description="the facts behind the reason")
    decided_by: str | None = Field(default=None, description="the node that decided")
    revision: int | None = Field(default=None, description="of the trigger, that it was decided by")


class MageRun(Out):
    """A run in the words of Mage's API."""

    id: int
    created_at: datetime
    updated_at: datetime
    pipeline_schedule_id: int | None
    pipeline_uuid: str
    execution_date: datetime
    status: RunStatus
    started_at: datetime | None
    completed_at: datetime | None
    variables: Mapping[str, Any]
    passed_sla: bool
    event_variables: Mapping[str, Any]
    metrics: Mapping[str, Any]
    backfill_id: int | None
    executor_type: Literal["local_python"] = "local_python"


class MageAnswer(Out):
    """The answer of an API trigger, as Mage gives it."""

    pipeline_run: MageRun
