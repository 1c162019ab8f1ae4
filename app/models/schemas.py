"""The bodies of the API, in and out: what `docs/` and the OpenAPI page show. Columns and rows are elsewhere.

What comes in is strict: unknown fields, wrong types and times without an offset are refused. What goes out is
made from rows (`model_validate(row)`), times in UTC.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from app.models.states import BlockStatus, Cause, Outcome, RunStatus, ScheduleStatus, ScheduleType

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
    warnings: list[str]
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
    created_at: datetime
    updated_at: datetime


class Alive(_Out):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Out):
    """The service takes work."""

    status: Literal["ready"] = "ready"


class Health(_Out):
    """How the service is. More keys may come."""

    model_config = ConfigDict(extra="allow")
