"""The bodies of the API, in and out: what `docs/` and the OpenAPI page show. Columns and rows are elsewhere.

What comes in is strict: unknown fields, wrong types and times without an offset are refused. What goes out is
made from rows (`model_validate(row)`), times in UTC.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from app.models.states import (
    BlockStatus,
    Cause,
    Outcome,
    RunStatus,
)
from app.models.wire import In, Out, Time


class RunRetry(In):
    """How a finished run is to run again."""

    source: Annotated[
        str, Field(alias="from", max_length=255, description="`failed`, `start`, or the uuid of a block")
    ] = "failed"
    variables: dict[str, JsonValue] | None = Field(
        default=None, description="overwrite variables of the old run"
    )
    changed: Literal["accept", "rerun"] | None = Field(
        default=None,
        description="finished blocks whose file has changed since: keep what they left, or run them again;"
        " without it such a retry is a 409 that names them",
    )


class RunEvent(Out):
    """Something that happened to a run. Ids grow within the run."""

    id: int
    type: Literal["run_created", "run_started", "block_started", "block_ended", "run_ended"]
    at: datetime
    block_uuid: str | None = None
    attempt: int | None = None
    status: str | None = Field(default=None, description="outcome of the attempt, or status of the run")
    reason: str | None = None


class RunCreate(In):
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
    with_upstream: bool = Field(
        default=False,
        description="with `block_uuid`: run everything above it too, instead of taking what is there",
    )
    skip_sensors: bool = Field(default=False, description="sensors are skipped and count as satisfied")
    priority: int = Field(default=0, ge=-1000, le=1000, description="higher starts earlier when runs wait")
    concurrency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern="^[^/\\x00-\\x1f]+$",
        description="runs of one key share the limit that is set on `key:<this>`",
    )


class SecretValue(In):
    """What a secret is to be. No answer ever holds it."""

    value: str = Field(min_length=1, max_length=65_536, description="text, up to 64 KiB")


class Secret(Out):
    """A secret without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


class Rotated(Out):
    """What a rotation did."""

    secrets: int = Field(description="how many are sealed with the first key now")


class Nothing(In):
    """An empty object: the operation takes no options."""


class Attempt(Out):
    """One try of a block. `error` says why it failed; `evidence` proves a kill or a crash."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    error: Mapping[str, Any] | None
    evidence: Mapping[str, Any] | None
    kind: Literal["block", "hook"] = Field(
        default="block", description="hook: a condition or callback of the block"
    )
    hook: str | None = Field(
        default=None, description="which one: condition:<uuid>, callback:<uuid>:<status>"
    )


class BlockRun(Out):
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
    parent_id: int | None = Field(default=None, description="of a child: the block run of its block")
    item_index: int | None = Field(default=None, description="of a child: which item it is for, from 0")
    children: int | None = Field(default=None, description="how many children run in its stead, an item each")
    children_by_status: Mapping[BlockStatus, int] | None = Field(
        default=None, description="where its children stand; they are listed by /block_runs?parent_id="
    )

    def with_children(self, counts: Mapping[str, int] | None) -> "BlockRun":
        """The same with the number of its children in each status."""
        if self.children is None:
            return self
        return self.model_copy(
            update={"children_by_status": {BlockStatus(s): n for s, n in (counts or {}).items()}}
        )


class Preview(Out):
    """The beginning of a data frame."""

    rows: int = Field(description="rows in all")
    columns: int = Field(description="columns in all; the first 50 are named")
    column_names: list[str]
    column_types: list[str] = Field(default=[])
    head: list[list[str]] = Field(default=[], description="the first rows, cells as text, long ones cut")


class Output(Out):
    """One output of a block. Values that are plain JSON are here; of others, what they look like."""

    index: int
    kind: Literal["json", "parquet", "pickle", "items", "list", "gone"] = Field(
        description="items: what a dynamic block hands out; list: what all children of a block left; "
        "gone: its file is no longer kept"
    )
    count: int | None = Field(default=None, description="how many there are, for kinds items and list")
    type: str | None = Field(default=None, description="type of the Python value")
    size: int | None = Field(default=None, description="bytes")
    value: JsonValue = Field(default=None, description="the value itself, for kind json")
    preview: Preview | None = None


class Outputs(Out):
    """What a block left for its downstream blocks."""

    block_run_id: int
    block_uuid: str
    status: BlockStatus
    outputs: list[Output]


class PipelineRun(Out):
    """One execution of a pipeline."""

    id: int
    pipeline_uuid: str
    pipeline_schedule_id: int | None
    backfill_id: int | None
    cause: Cause
    execution_date: datetime
    status: RunStatus
    status_reason: str | None
    status_detail: Mapping[str, Any] | None = Field(
        default=None, description="the facts behind the reason, or why it waits: limit, cap, holders"
    )
    variables: Mapping[str, Any]
    event_variables: Mapping[str, Any]
    priority: int
    concurrency_key: str | None = None
    sla_at: datetime | None = Field(default=None, description="when it is to be over")
    sla_passed_at: datetime | None = None
    passed_sla: bool
    metrics: Mapping[str, Any]
    retry_of: int | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    block_runs: list[BlockRun] | None = Field(
        default=None, description="null in lists, and in the answer of a creation that was not waited for"
    )


class LogLine(Out):
    """One line that a block wrote, or the service on its behalf (`stream` system)."""

    id: str
    at: datetime
    block_uuid: str | None
    attempt: int | None
    stream: str
    level: str
    text: str


class BlockDefinition(Out):
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


class PipelineDefinition(Out):
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


class Alive(Out):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(Out):
    """The service takes work."""

    status: Literal["ready"] = "ready"


class Health(Out):
    """How the service is. More keys may come."""

    model_config = ConfigDict(extra="allow")
