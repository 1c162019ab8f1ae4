"""Rows as the store hands them out: frozen, typed, times aware and in UTC.

The tables are in `tables.py`; nothing above the store ever sees a table object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.models.states import (
    BlockStatus,
    Cause,
    Outcome,
    RunStatus,
    ScheduleStatus,
    ScheduleType,
    SlotOutcome,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A pipeline run. `options` holds `block_uuid`, `skip_sensors` and the like as asked for at launch."""

    id: int
    pipeline_uuid: str
    pipeline_hash: str
    cause: Cause
    execution_date: datetime
    status: RunStatus
    created_at: datetime
    pipeline_schedule_id: int | None = None
    backfill_id: int | None = None
    status_reason: str | None = None
    #: the facts behind the reason, or behind a wait: which limit, its cap, who holds the places
    status_detail: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    event_variables: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    concurrency_key: str | None = None
    owner: str | None = None
    epoch: int = 0
    recoveries: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    deadline_at: datetime | None = None
    timeout_s: float | None = None
    timeout_status: str | None = None
    sla_at: datetime | None = None
    sla_passed_at: datetime | None = None
    passed_sla: bool = False
    retry_of: int | None = None
    parent_run_id: int | None = None
    depth: int = 0
    rides: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One try of a block. `error` is a BlockError as a mapping; `evidence` proves a kill or a crash."""

    attempt: int
    epoch: int
    node_id: str
    started_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    error: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] | None = None
    code_hash: str | None = None
    kind: str = "block"
    #: `condition:<uuid>` or `callback:<uuid>` for an attempt of kind `hook`
    hook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """A block run. `outputs` are references as in `executors.base.OutputRef`."""

    id: int
    pipeline_run_id: int
    block_uuid: str
    status: BlockStatus
    status_reason: str | None = None
    attempt: int = 0
    max_attempts: int = 1
    started_at: datetime | None = None
    completed_at: datetime | None = None
    wake_at: datetime | None = None
    outputs: Sequence[Mapping[str, Any]] = ()
    error: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parent_id: int | None = None
    item_index: int | None = None
    children: int | None = None
    carried_from: int | None = None
    attempts: tuple[AttemptRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One log line of a run. `id` grows within a run and is what a cursor or an SSE id holds."""

    id: str
    at: datetime
    block_uuid: str | None
    attempt: int | None
    stream: str
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A trigger. `cursor_at` is the last decided execution date, `next_fire_at` when to look at it again."""

    id: int
    name: str
    pipeline_uuid: str
    schedule_type: ScheduleType
    status: ScheduleStatus
    created_at: datetime
    updated_at: datetime
    description: str | None = None
    schedule_interval: str | None = None
    timezone: str | None = None
    start_time: datetime | None = None
    last_enabled_at: datetime | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sla: int | None = None
    tags: tuple[str, ...] = ()
    revision: int = 1
    cursor_at: datetime | None = None
    next_fire_at: datetime | None = None
    next_execution_date: datetime | None = None
    #: set when the definition cannot be scheduled; the trigger is quarantined until it is mended
    error: str | None = None
    managed_by: str = "file"
    #: what becomes of slots up to `missed_until`, by the word of whoever resumed it: skip, latest or all
    missed_policy: str | None = None
    missed_until: datetime | None = None
    #: when the run of `next_execution_date` starts, with jitter and landing time; past its `end_time`
    starts_at: datetime | None = None
    ended: bool = False
    #: its row in the database holds something that is no value: it is here with what can be read
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRow:
    """What became of one due slot, or of a stretch of `count` slots that ended at `until`."""

    pipeline_schedule_id: int
    execution_date: datetime
    outcome: SlotOutcome
    decided_at: datetime
    reason: str | None = None
    pipeline_run_id: int | None = None
    until: datetime | None = None
    count: int = 1
    #: the facts behind `reason`, for an explanation
    detail: Mapping[str, Any] | None = None
    #: the node that decided, and the revision of the trigger that it decided by
    decided_by: str | None = None
    revision: int | None = None
