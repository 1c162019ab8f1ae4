"""The tables of the core: triggers and their slots, runs, blocks, attempts, logs, nodes, limits.

Constraints come first: what must never be, the database refuses; the code is the second guard. Columns only,
no behaviour; the store alone uses these classes, everybody else sees `rows.py`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from app.models.columns import Id, Text, UtcDateTime, one_of
from app.models.fields import fk_, id_, in_, json_, partial_, ref_, text_, time_
from app.models.states import (
    BLOCK_TERMINAL,
    RUN_TERMINAL,
    BlockStatus,
    Cause,
    NodeState,
    Outcome,
    RunStatus,
    ScheduleStatus,
    ScheduleType,
    SlotOutcome,
)

metadata = SQLModel.metadata
_ENDED_RUN = f"status IN {in_(RUN_TERMINAL)}"
_ENDED_BLOCK = f"status IN {in_(BLOCK_TERMINAL)}"


class Meta(SQLModel, table=True):
    """Facts about the database itself: `project_uuid`, `created_at`."""

    __tablename__ = "meta"
    key: str = text_(primary_key=True)
    value: str = text_()


class IdBlock(SQLModel, table=True):
    """Where the next block of ids begins; a node takes many at once and never gives any back."""

    __tablename__ = "id_block"
    name: str = text_(primary_key=True)
    next_id: int = id_(nullable=False)


class Node(SQLModel, table=True):
    """One service process. `pid_started` tells a process from a later one with the same pid."""

    __tablename__ = "node"
    __table_args__ = (
        one_of("state", NodeState, "state"),
        CheckConstraint("(state IN ('stopped', 'fenced')) = (ended_at IS NOT NULL)", name="ended"),
    )
    id: str = text_(primary_key=True)
    host_id: str = text_()
    pid: int = Field(sa_type=Id)
    pid_started: int = Field(sa_type=Id)
    version: str = text_()
    state: str = text_()
    started_at: datetime = time_(nullable=False)
    lease_until: datetime = time_(nullable=False)
    ended_at: datetime | None = time_()


class NodeJournal(SQLModel, table=True):
    """How many flushes of a node have committed: answers whether a lost COMMIT arrived."""

    __tablename__ = "node_journal"
    node_id: str = Field(sa_type=Text, primary_key=True, sa_column_args=(fk_("node.id"),))
    seq: int = Field(sa_type=Id)


class PipelineVersion(SQLModel, table=True):
    """A frozen definition; runs name it by hash, so that an edit never changes a running run."""

    __tablename__ = "pipeline_version"
    hash: str = text_(primary_key=True)
    pipeline_uuid: str = text_()
    definition: str = text_()
    created_at: datetime = time_(nullable=False)


class PipelineSchedule(SQLModel, table=True):
    """A trigger. `cursor_at`: last decided execution date; `next_fire_at`: when to look again."""

    __tablename__ = "pipeline_schedule"
    __table_args__ = (
        one_of("schedule_type", ScheduleType, "schedule_type"),
        one_of("status", ScheduleStatus, "status"),
        CheckConstraint("sla > 0", name="sla"),
        CheckConstraint("managed_by IN ('file', 'api')", name="managed_by"),
        partial_(
            "uq_pipeline_schedule_live_name", "pipeline_uuid", "name", unique=True, where="deleted_at IS NULL"
        ),
        partial_("ix_pipeline_schedule_due", "next_fire_at", where="next_fire_at IS NOT NULL"),
    )
    id: int = id_(primary_key=True)
    name: str = text_()
    description: str | None = text_(nullable=True)
    pipeline_uuid: str = text_()
    schedule_type: str = text_()
    schedule_interval: str | None = text_(nullable=True)
    timezone: str | None = text_(nullable=True)
    status: str = text_()
    start_time: datetime | None = time_()
    last_enabled_at: datetime | None = time_()
    variables: dict[str, Any] = json_()
    settings: dict[str, Any] = json_()
    sla: int | None = Field(default=None)
    tags: list[str] = json_()
    managed_by: str = text_()
    digest: str | None = text_(nullable=True)
    token_hash: str | None = text_(nullable=True)
    error: str | None = text_(nullable=True)
    revision: int = Field(sa_type=Id)
    cursor_at: datetime | None = time_()
    next_fire_at: datetime | None = time_()
    missed_policy: str | None = text_(nullable=True)
    missed_until: datetime | None = time_()
    #: the ledger is whole after this slot: rows up to it may have been pruned
    pruned_until: datetime | None = time_()
    created_at: datetime = time_(nullable=False)
    updated_at: datetime = time_(nullable=False)
    deleted_at: datetime | None = time_()


class ScheduleRevision(SQLModel, table=True):
    """What a trigger said and from when, so that the slots it should have had can be computed again."""

    __tablename__ = "schedule_revision"
    schedule_id: int = ref_("pipeline_schedule.id", nullable=False, primary_key=True)
    revision: int = Field(sa_type=Id, primary_key=True)
    at: datetime = time_(nullable=False)
    schedule_interval: str | None = text_(nullable=True)
    timezone: str | None = text_(nullable=True)
    status: str = text_()
    cursor_at: datetime | None = time_()
    start_time: datetime | None = time_()
    settings: dict[str, Any] | None = json_(nullable=True)
    last_enabled_at: datetime | None = time_()


class PipelineRun(SQLModel, table=True):
    """One execution of a pipeline. `rides`: its parent waits for it, so it takes no place of its own globally."""

    __tablename__ = "pipeline_run"
    __table_args__ = (
        one_of("status", RunStatus, "status"),
        one_of("cause", Cause, "cause"),
        CheckConstraint(f"({_ENDED_RUN}) = (completed_at IS NOT NULL)", name="ended"),
        CheckConstraint(
            "status <> 'running' OR (owner IS NOT NULL AND started_at IS NOT NULL)", name="owned"
        ),
        CheckConstraint("(started_at IS NULL) = (s_seq IS NULL)", name="started"),
        CheckConstraint("e_seq IS NULL OR s_seq IS NOT NULL", name="ordered"),
        CheckConstraint(
            "timeout_status IS NULL OR timeout_status IN ('failed', 'cancelled')", name="timeout"
        ),
        UniqueConstraint("dedupe_scope", "dedupe_key"),
        partial_(
            "ix_pipeline_run_waiting", text("priority DESC"), "created_at", "id", where="status = 'initial'"
        ),
        partial_(
            "ix_pipeline_run_running",
            "owner",
            "pipeline_schedule_id",
            "pipeline_uuid",
            where="status = 'running'",
        ),
        partial_(
            "uq_pipeline_run_live_retry",
            "retry_root",
            unique=True,
            where="retry_root IS NOT NULL AND completed_at IS NULL",
        ),
        Index("ix_pipeline_run_pipeline", "pipeline_uuid", "id"),
        Index("ix_pipeline_run_schedule", "pipeline_schedule_id", "id"),
        partial_(
            "ix_pipeline_run_cancelling",
            "owner",
            where="cancel_requested_at IS NOT NULL AND status = 'running'",
        ),
        partial_(
            "ix_pipeline_run_sla",
            "sla_at",
            where="sla_at IS NOT NULL AND sla_passed_at IS NULL AND completed_at IS NULL",
        ),
        partial_("ix_pipeline_run_passed_sla", "id", where="sla_passed_at IS NOT NULL"),
        partial_("ix_pipeline_run_parent", "parent_run_id", where="parent_run_id IS NOT NULL"),
        # What is pruned is found by its age, and each row that may name it is asked.
        partial_(
            "ix_pipeline_run_completed",
            "pipeline_uuid",
            "completed_at",
            "id",
            where="completed_at IS NOT NULL",
        ),
        partial_("ix_pipeline_run_retry_of", "retry_of", where="retry_of IS NOT NULL"),
        partial_("ix_pipeline_run_retry_root", "retry_root", where="retry_root IS NOT NULL"),
        partial_("ix_pipeline_run_owner", "owner", where="owner IS NOT NULL"),
    )
    id: int = id_(primary_key=True)
    pipeline_uuid: str = text_()
    pipeline_hash: str = Field(sa_type=Text, sa_column_args=(fk_("pipeline_version.hash"),))
    pipeline_schedule_id: int | None = ref_("pipeline_schedule.id")
    backfill_id: int | None = Field(sa_type=Id, default=None)
    cause: str = text_()
    execution_date: datetime = time_(nullable=False)
    variables: dict[str, Any] = json_()
    event_variables: dict[str, Any] = json_()
    options: dict[str, Any] = json_()
    status: str = text_()
    status_reason: str | None = text_(nullable=True)
    status_detail: dict[str, Any] | None = json_(nullable=True)
    priority: int = Field(default=0)
    concurrency_key: str | None = text_(nullable=True)
    owner: str | None = Field(sa_type=Text, default=None, sa_column_args=(fk_("node.id"),))
    epoch: int = Field(sa_type=Id)
    recoveries: int = Field(default=0)
    created_at: datetime = time_(nullable=False)
    started_at: datetime | None = time_()
    completed_at: datetime | None = time_()
    cancel_requested_at: datetime | None = time_()
    deadline_at: datetime | None = time_()
    timeout_s: float | None = Field(default=None)
    timeout_status: str | None = text_(nullable=True)
    sla_at: datetime | None = time_()
    sla_passed_at: datetime | None = time_()
    passed_sla: bool = Field(default=False)
    dedupe_scope: str | None = text_(nullable=True)
    dedupe_key: str | None = text_(nullable=True)
    retry_of: int | None = ref_("pipeline_run.id")
    retry_root: int | None = ref_("pipeline_run.id")
    parent_run_id: int | None = ref_("pipeline_run.id")
    depth: int = Field(default=0)
    rides: bool = Field(default=False)
    metrics: dict[str, Any] = json_()
    s_seq: int | None = Field(sa_type=Id, default=None)
    e_seq: int | None = Field(sa_type=Id, default=None)


class ScheduleSlot(SQLModel, table=True):
    """What became of a due slot. The row is the lock, the audit and the explanation.

    A long stretch that policy drops is one row: `until` its last slot, `slot_count` how many.
    """

    __tablename__ = "schedule_slot"
    __table_args__ = (
        one_of("outcome", SlotOutcome, "outcome"),
        CheckConstraint("(outcome = 'run') = (pipeline_run_id IS NOT NULL)", name="has_run"),
        CheckConstraint("slot_count >= 1 AND (slot_count = 1) = (until IS NULL)", name="gap"),
        Index("ix_schedule_slot_run", "pipeline_run_id"),
        partial_("ix_schedule_slot_sla", "sla_at", where="sla_at IS NOT NULL AND sla_passed_at IS NULL"),
    )
    pipeline_schedule_id: int = ref_("pipeline_schedule.id", nullable=False, primary_key=True)
    execution_date: datetime = Field(sa_type=UtcDateTime, primary_key=True)
    outcome: str = text_()
    reason: str | None = text_(nullable=True)
    detail: dict[str, Any] | None = json_(nullable=True)
    pipeline_run_id: int | None = ref_("pipeline_run.id")
    until: datetime | None = time_()
    slot_count: int = Field(default=1)
    sla_at: datetime | None = time_()
    sla_passed_at: datetime | None = time_()
    revision: int = Field(sa_type=Id)
    decided_by: str = text_()
    decided_at: datetime = time_(nullable=False)


class BlockRun(SQLModel, table=True):
    """One block of one run. `attempt` counts its attempts; `outputs` is a JSON text of references.

    A block that runs once an item has `children`, and a row an item below it, which name it in `parent_id`.
    """

    __tablename__ = "block_run"
    __table_args__ = (
        one_of("status", BlockStatus, "status"),
        CheckConstraint(f"({_ENDED_BLOCK}) = (completed_at IS NOT NULL)", name="ended"),
        CheckConstraint("status <> 'running' OR attempt > 0", name="running"),
        UniqueConstraint("pipeline_run_id", "block_uuid"),
        partial_("ix_block_run_carried", "carried_from", where="carried_from IS NOT NULL"),
    )
    id: int = id_(primary_key=True)
    pipeline_run_id: int = ref_("pipeline_run.id", cascade=True, nullable=False)
    position: int = Field()
    block_uuid: str = text_()
    status: str = text_()
    status_reason: str | None = text_(nullable=True)
    attempt: int = Field(default=0)
    max_attempts: int = Field(default=1)
    started_at: datetime | None = time_()
    completed_at: datetime | None = time_()
    wake_at: datetime | None = time_()
    outputs: str | None = text_(nullable=True)
    error: dict[str, Any] | None = json_(nullable=True)
    metrics: dict[str, Any] | None = json_(nullable=True)
    carried_from: int | None = Field(sa_type=Id, default=None)
    parent_id: int | None = Field(sa_type=Id, default=None)
    item_index: int | None = Field(default=None)
    children: int | None = Field(default=None)


class BlockAttempt(SQLModel, table=True):
    """One try of a block: written before user code starts, closed with its outcome.

    A condition or callback is an attempt of kind `hook`; `hook` says which: `condition:<uuid>`, `callback:<uuid>`.
    """

    __tablename__ = "block_attempt"
    __table_args__ = (
        one_of("outcome", Outcome, "outcome", nullable=True),
        CheckConstraint("kind IN ('block', 'hook')", name="kind"),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
        CheckConstraint("(outcome IS NULL) = (e_seq IS NULL)", name="ordered"),
        partial_(
            "uq_block_attempt_completed",
            "block_run_id",
            unique=True,
            where="outcome = 'completed' AND kind = 'block'",
        ),
        partial_("uq_block_attempt_open", "block_run_id", unique=True, where="ended_at IS NULL"),
    )
    block_run_id: int = ref_("block_run.id", cascade=True, nullable=False, primary_key=True)
    attempt: int = Field(primary_key=True)
    kind: str = text_()
    epoch: int = Field(sa_type=Id)
    node_id: str = text_()
    started_at: datetime = time_(nullable=False)
    ended_at: datetime | None = time_()
    s_seq: int = Field(sa_type=Id)
    e_seq: int | None = Field(sa_type=Id, default=None)
    outcome: str | None = text_(nullable=True)
    error: dict[str, Any] | None = json_(nullable=True)
    evidence: dict[str, Any] | None = json_(nullable=True)
    code_hash: str | None = text_(nullable=True)
    hook: str | None = text_(nullable=True)


class BlockLog(SQLModel, table=True):
    """A chunk of log lines, JSON text `[[µs, stream, level, text], …]`; `pos` = epoch · 2³² + n."""

    __tablename__ = "block_log"
    pipeline_run_id: int = ref_("pipeline_run.id", cascade=True, nullable=False, primary_key=True)
    pos: int = Field(sa_type=Id, primary_key=True)
    block_run_id: int | None = Field(sa_type=Id, default=None)
    attempt: int | None = Field(default=None)
    lines: str = text_()


class Tombstone(SQLModel, table=True):
    """A run whose files are to be deleted: written with what made them unneeded, gone when they are."""

    __tablename__ = "tombstone"
    run_id: int = id_(primary_key=True)
    at: datetime = time_(nullable=False)


class Limit(SQLModel, table=True):
    """How many runs of a scope may run at once; no row is no limit. The row is also the lock."""

    __tablename__ = "run_limit"
    __table_args__ = (CheckConstraint("cap >= 0", name="cap"),)
    scope: str = text_(primary_key=True)
    cap: int = Field()
    source: str | None = text_(nullable=True)
    updated_at: datetime | None = time_()


class LimitHistory(SQLModel, table=True):
    """Every change of a limit by `seq`, so that overlap can be judged by the limit that held then."""

    __tablename__ = "run_limit_history"
    scope: str = text_(primary_key=True)
    seq: int = Field(sa_type=Id, primary_key=True)
    cap: int | None = Field(default=None)
    source: str | None = text_(nullable=True)
    at: datetime = time_(nullable=False)
