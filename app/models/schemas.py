"""The bodies of the API, in and out: what `docs/` and the OpenAPI page show. Columns and rows are elsewhere.

What comes in is strict: unknown fields, wrong types and times without an offset are refused. What goes out is
made from rows (`model_validate(row)`), times in UTC.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from app.models.states import (
    BlockStatus,
    Cause,
    Outcome,
    RunStatus,
    ScheduleStatus,
    ScheduleType,
    SlotOutcome,
)

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
MAX_INT64: Final = 2**63 - 1
#: Outside these years a zone's offset, or the next slot, may leave what `datetime` can hold.
_YEARS: Final = range(1900, 9000)


def parse_time(value: object) -> datetime:
    """An RFC 3339 time with an offset, as UTC. Raises ValueError, also for a naive time.

    >>> parse_time("2026-03-01T02:00:00+02:00").isoformat()
    '2026-03-01T00:00:00+00:00'
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError(
            "must be an RFC 3339 time with an offset, such as 2026-01-31T08:00:00Z or …T08:00:00+01:00"
        )
    if int(value[:4]) not in _YEARS:
        raise ValueError(f"the year must lie between {_YEARS.start} and {_YEARS.stop - 1}")
    return datetime.fromisoformat(value.upper()).astimezone(UTC)


def parse_int64(value: object) -> object:
    """Decimal digits as a number: the only spelling of an id or a count in a path or a query."""
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise ValueError("must be a whole number")
    return value


def parse_bool(value: object) -> object:
    """`true` or `false` in a query: other spellings would be guessed at."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


Time = Annotated[
    datetime,
    BeforeValidator(parse_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T08:00:00Z"]}),
]
#: An id in a path or a query.
Int64 = Annotated[int, Field(ge=1, le=MAX_INT64), BeforeValidator(parse_int64)]
Item = TypeVar("Item")


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Fault(_Out):
    """One fault of one field."""

    pointer: str = Field(description="JSON pointer into the body, or the name of a parameter or header")
    message: str


class Problem(_Out):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = Field(description="path of the request")
    code: str = Field(description="stable name of the error, for programs")
    request_id: str = Field(description="also in the X-Request-Id header and in the service's log")
    hint: str | None = Field(default=None, description="the way out")
    errors: list[Fault] | None = None


class Page(_Out, Generic[Item]):
    """One page of a list. Ask again with `cursor=<next_cursor>` until it is null."""

    items: list[Item]
    next_cursor: str | None = None


class RunRetry(_In):
    """How a finished run is to run again."""

    source: Annotated[
        str, Field(alias="from", max_length=255, description="`failed`, `start`, or the uuid of a block")
    ] = "failed"
    variables: dict[str, JsonValue] | None = Field(
        default=None, description="overwrite variables of the old run"
    )


class RunEvent(_Out):
    """Something that happened to a run. Ids grow within the run."""

    id: int
    type: Literal["run_created", "run_started", "block_started", "block_ended", "run_ended"]
    at: datetime
    block_uuid: str | None = None
    attempt: int | None = None
    status: str | None = Field(default=None, description="outcome of the attempt, or status of the run")
    reason: str | None = None


class RunCreate(_In):
    """What a new pipeline run is asked to do. Every field may be left out."""

    variables: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="runtime variables; they win over the trigger's and the pipeline's",
        examples=[{"env": "production"}],
    )
    execution_date: Time | None = Field(default=None, description="logical time; now if left out")
    block_uuid: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="run this block only, with its upstream blocks' newest outputs",
    )
    skip_sensors: bool = Field(default=False, description="sensors are skipped and count as satisfied")
    priority: int = Field(default=0, ge=-1000, le=1000, description="higher starts earlier when runs wait")


def _kind(value: object) -> object:
    if value == ScheduleType.EVENT:
        raise ValueError("event triggers are not supported yet")
    return value


ScheduleKind = Annotated[Literal["time", "api"], BeforeValidator(_kind)]
Switch = Literal["active", "inactive"]
Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=70)]], Field(max_length=100, examples=[["nightly"]])
]
_INTERVAL: Final = "one of @once, @hourly, @daily, @weekly, @monthly, @always_on, or a cron expression"
_SETTINGS: Final = "the `settings` of an entry of triggers.yaml, such as pipeline_run_limit"


class _Definition(_In):
    """What a caller may say of a trigger, at birth and later."""

    description: str | None = Field(default=None, max_length=10_000)
    schedule_interval: str | None = Field(
        default=None, max_length=255, description=_INTERVAL, examples=["0 6 * * mon-fri"]
    )
    timezone: str | None = Field(
        default=None, max_length=100, description="IANA name; the project's without it, else UTC"
    )
    start_time: Time | None = Field(default=None, description="no slot before it")


class ScheduleCreate(_Definition):
    """A new trigger. One of type time needs a schedule_interval; one of type api has none and gets a token."""

    name: str = Field(min_length=1, max_length=255, description="unique among the pipeline's triggers")
    pipeline_uuid: str = Field(min_length=1, max_length=255)
    schedule_type: ScheduleKind
    status: Switch = "inactive"
    variables: dict[str, JsonValue] = Field(default_factory=dict, description="overwrite the pipeline's")
    settings: dict[str, JsonValue] = Field(default_factory=dict, description=_SETTINGS)
    tags: Tags = Field(default_factory=list)


class SchedulePatch(_Definition):
    """What is to change; fields that are left out stay. Variables, settings and tags are replaced as a whole."""

    name: str = Field(default="", min_length=1, max_length=255)
    schedule_type: ScheduleKind = "time"
    status: Switch = "inactive"
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    settings: dict[str, JsonValue] = Field(default_factory=dict, description=_SETTINGS)
    tags: Tags = Field(default_factory=list)


class TriggerNow(_In):
    """What a run of a trigger, started now, is asked to do. Every field may be left out."""

    variables: dict[str, JsonValue] = Field(
        default_factory=dict, description="runtime variables; they win over the trigger's and the pipeline's"
    )
    execution_date: Time | None = Field(default=None, description="logical time; now if left out")


class Nothing(_In):
    """An empty object: the operation takes no options."""


class Attempt(_Out):
    """One try of a block. `error` says why it failed; `evidence` proves a kill or a crash."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    error: Mapping[str, Any] | None
    evidence: Mapping[str, Any] | None


class BlockRun(_Out):
    """What became of one block in one run."""

    id: int
    pipeline_run_id: int
    block_uuid: str
    status: BlockStatus
    status_reason: str | None
    attempt: int = Field(description="number of the newest attempt; 0 before the first")
    max_attempts: int
    started_at: datetime | None
    completed_at: datetime | None
    wake_at: datetime | None = Field(description="when the next attempt or poke is due")
    metrics: Mapping[str, Any]
    error: Mapping[str, Any] | None = Field(description="type, message, file, line and traceback")
    attempts: list[Attempt]


class Preview(_Out):
    """The beginning of a data frame."""

    rows: int = Field(description="rows in all")
    columns: int = Field(description="columns in all; the first 50 are named")
    column_names: list[str]
    column_types: list[str] = []
    head: list[list[str]] = Field(default=[], description="the first rows, cells as text, long ones cut")


class Output(_Out):
    """One output of a block. Values that are plain JSON are here; of others, what they look like."""

    index: int
    kind: Literal["json", "parquet", "pickle"]
    type: str | None = Field(default=None, description="type of the Python value")
    size: int | None = Field(default=None, description="bytes")
    value: JsonValue = Field(default=None, description="the value itself, for kind json")
    preview: Preview | None = None


class Outputs(_Out):
    """What a block left for its downstream blocks."""

    block_run_id: int
    block_uuid: str
    status: BlockStatus
    outputs: list[Output]


class PipelineRun(_Out):
    """One execution of a pipeline."""

    id: int
    pipeline_uuid: str
    pipeline_schedule_id: int | None
    backfill_id: int | None
    cause: Cause
    execution_date: datetime
    status: RunStatus
    status_reason: str | None
    variables: Mapping[str, Any]
    event_variables: Mapping[str, Any]
    priority: int
    passed_sla: bool
    metrics: Mapping[str, Any]
    retry_of: int | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    block_runs: list[BlockRun] | None = Field(
        default=None, description="null in lists, and in the answer of a creation that was not waited for"
    )


class LogLine(_Out):
    """One line that a block wrote, or the service on its behalf (`stream` system)."""

    id: str
    at: datetime
    block_uuid: str | None
    attempt: int | None
    stream: str
    level: str
    text: str


class BlockDefinition(_Out):
    """One step of a pipeline, as its definition says."""

    uuid: str
    name: str
    type: str
    language: str
    file: str = Field(description="relative to the project folder")
    upstream_blocks: list[str]
    downstream_blocks: list[str]
    isolation: str
    timeout: float | None = Field(description="seconds an attempt may take")


class PipelineDefinition(_Out):
    """A pipeline of the project. An invalid one is listed with its error and cannot run."""

    uuid: str
    name: str
    type: str
    description: str
    tags: list[str]
    status: Literal["ok", "invalid"]
    error: str | None = Field(description="what is wrong, with file and line")
    warnings: list[str] = Field(
        description="what has no effect, and entries of its triggers.yaml that are none"
    )
    blocks: list[BlockDefinition]


class PipelineSchedule(_Out):
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
    next_execution_date: datetime | None
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


class Token(_Out):
    """The new token of an API trigger."""

    token: str = Field(description="shown this once, only its hash is kept")


class Slot(_Out):
    """What became of a due slot, or of a stretch of `count` slots that ended at `until`."""

    execution_date: datetime
    outcome: SlotOutcome
    reason: str | None
    pipeline_run_id: int | None
    until: datetime | None
    count: int
    decided_at: datetime


class MageRun(_Out):
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


class MageAnswer(_Out):
    """The answer of an API trigger, as Mage gives it."""

    pipeline_run: MageRun


class Alive(_Out):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Out):
    """The service takes work."""

    status: Literal["ready"] = "ready"


class Health(_Out):
    """How the service is. More keys may come."""

    model_config = ConfigDict(extra="allow")
