"""The tables of the core: triggers and their slots, runs, blocks, attempts, logs, nodes, limits.

Constraints come first: what must never be, the database refuses; the code is the second guard. Columns only,
no behaviour; the store alone uses these classes, everybody else sees `rows.py`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from app.models.columns import Id, Json, Text, UtcDateTime, one_of
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

metadata: MetaData = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def _in(values: Any) -> str:
    return "(" + ", ".join(f"'{v}'" for v in sorted(values)) + ")"


_ENDED_RUN = f"status IN {_in(RUN_TERMINAL)}"
_ENDED_BLOCK = f"status IN {_in(BLOCK_TERMINAL)}"


def _fk(target: str, *, cascade: bool = False) -> ForeignKey:
    return ForeignKey(target, ondelete="CASCADE" if cascade else None)


def _id(**kw: Any) -> Any:
    return Field(sa_type=Id, **kw)


def _ref(target: str, *, cascade: bool = False, nullable: bool = True, **kw: Any) -> Any:
    if nullable:
        kw.setdefault("default", None)
    return Field(sa_type=Id, nullable=nullable, sa_column_args=(_fk(target, cascade=cascade),), **kw)


def _text(*, nullable: bool = False, **kw: Any) -> Any:
    if nullable:
        kw.setdefault("default", None)
    return Field(sa_type=Text, nullable=nullable, **kw)


def _time(*, nullable: bool = True) -> Any:
    return Field(sa_type=UtcDateTime, nullable=True, default=None) if nullable else Field(sa_type=UtcDateTime)


def _json(*, nullable: bool = False) -> Any:
    return Field(sa_type=Json, nullable=True, default=None) if nullable else Field(sa_type=Json)


class Meta(SQLModel, table=True):
    """Facts about the database itself: `project_uuid`, `created_at`."""

    __tablename__ = "meta"
    key: str = _text(primary_key=True)
    value: str = _text()


class IdBlock(SQLModel, table=True):
    """Where the next block of ids begins; a node takes many at once and never gives any back."""

    __tablename__ = "id_block"
    name: str = _text(primary_key=True)
    next_id: int = _id(nullable=False)


class Node(SQLModel, table=True):
    """One service process. `pid_started` tells a process from a later one with the same pid."""

    __tablename__ = "node"
    __table_args__ = (
        one_of("state", NodeState, "state"),
        CheckConstraint("(state IN ('stopped', 'fenced')) = (ended_at IS NOT NULL)", name="ended"),
    )
    id: str = _text(primary_key=True)
    host_id: str = _text()
    pid: int = Field(sa_type=Id)
    pid_started: int = Field(sa_type=Id)
    version: str = _text()
    state: str = _text()
    started_at: datetime = _time(nullable=False)
    lease_until: datetime = _time(nullable=False)
    ended_at: datetime | None = _time()


class NodeJournal(SQLModel, table=True):
    """How many flushes of a node have committed: answers whether a lost COMMIT arrived."""

    __tablename__ = "node_journal"
    node_id: str = Field(sa_type=Text, primary_key=True, sa_column_args=(_fk("node.id"),))
    seq: int = Field(sa_type=Id)


class PipelineVersion(SQLModel, table=True):
    """A frozen definition; runs name it by hash, so that an edit never changes a running run."""

    __tablename__ = "pipeline_version"
    hash: str = _text(primary_key=True)
    pipeline_uuid: str = _text()
    definition: str = _text()
    created_at: datetime = _time(nullable=False)


class PipelineSchedule(SQLModel, table=True):
    """A trigger. `cursor_at`: last decided execution date; `next_fire_at`: when to look again."""

    __tablename__ = "pipeline_schedule"
    __table_args__ = (
        one_of("schedule_type", ScheduleType, "schedule_type"),
        one_of("status", ScheduleStatus, "status"),
        CheckConstraint("sla > 0", name="sla"),
        CheckConstraint("managed_by IN ('file', 'api')", name="managed_by"),
        Index(
            "uq_pipeline_schedule_live_name",
            "pipeline_uuid",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "ix_pipeline_schedule_due",
            "next_fire_at",
            sqlite_where=text("next_fire_at IS NOT NULL"),
            postgresql_where=text("next_fire_at IS NOT NULL"),
        ),
    )
    id: int = _id(primary_key=True)
    name: str = _text()
    description: str | None = _text(nullable=True)
    pipeline_uuid: str = _text()
    schedule_type: str = _text()
    schedule_interval: str | None = _text(nullable=True)
    timezone: str | None = _text(nullable=True)
    status: str = _text()
    start_time: datetime | None = _time()
    last_enabled_at: datetime | None = _time()
    variables: dict[str, Any] = _json()
    settings: dict[str, Any] = _json()
    sla: int | None = Field(default=None)
    tags: list[str] = _json()
    managed_by: str = _text()
    digest: str | None = _text(nullable=True)
    token_hash: str | None = _text(nullable=True)
    error: str | None = _text(nullable=True)
    revision: int = Field(sa_type=Id)
    cursor_at: datetime | None = _time()
    next_fire_at: datetime | None = _time()
    created_at: datetime = _time(nullable=False)
    updated_at: datetime = _time(nullable=False)
    deleted_at: datetime | None = _time()


class ScheduleRevision(SQLModel, table=True):
    """What a trigger said and from when, so that the slots it should have had can be computed again."""

    __tablename__ = "schedule_revision"
    schedule_id: int = _ref("pipeline_schedule.id", nullable=False, primary_key=True)
    revision: int = Field(sa_type=Id, primary_key=True)
    at: datetime = _time(nullable=False)
    schedule_interval: str | None = _text(nullable=True)
    timezone: str | None = _text(nullable=True)
    status: str = _text()
    cursor_at: datetime | None = _time()


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
        Index(
            "ix_pipeline_run_waiting",
            text("priority DESC"),
            "created_at",
            "id",
            sqlite_where=text("status = 'initial'"),
            postgresql_where=text("status = 'initial'"),
        ),
        Index(
            "ix_pipeline_run_running",
            "owner",
            "pipeline_schedule_id",
            "pipeline_uuid",
            sqlite_where=text("status = 'running'"),
            postgresql_where=text("status = 'running'"),
        ),
        Index(
            "uq_pipeline_run_live_retry",
            "retry_root",
            unique=True,
            sqlite_where=text("retry_root IS NOT NULL AND completed_at IS NULL"),
            postgresql_where=text("retry_root IS NOT NULL AND completed_at IS NULL"),
        ),
        Index("ix_pipeline_run_pipeline", "pipeline_uuid", "id"),
        Index("ix_pipeline_run_schedule", "pipeline_schedule_id", "id"),
        Index(
            "ix_pipeline_run_parent",
            "parent_run_id",
            sqlite_where=text("parent_run_id IS NOT NULL"),
            postgresql_where=text("parent_run_id IS NOT NULL"),
        ),
    )
    id: int = _id(primary_key=True)
    pipeline_uuid: str = _text()
    pipeline_hash: str = Field(sa_type=Text, sa_column_args=(_fk("pipeline_version.hash"),))
    pipeline_schedule_id: int | None = _ref("pipeline_schedule.id")
    backfill_id: int | None = Field(sa_type=Id, default=None)
    cause: str = _text()
    execution_date: datetime = _time(nullable=False)
    variables: dict[str, Any] = _json()
    event_variables: dict[str, Any] = _json()
    options: dict[str, Any] = _json()
    status: str = _text()
    status_reason: str | None = _text(nullable=True)
    priority: int = Field(default=0)
    concurrency_key: str | None = _text(nullable=True)
    owner: str | None = Field(sa_type=Text, default=None, sa_column_args=(_fk("node.id"),))
    epoch: int = Field(sa_type=Id)
    recoveries: int = Field(default=0)
    created_at: datetime = _time(nullable=False)
    started_at: datetime | None = _time()
    completed_at: datetime | None = _time()
    cancel_requested_at: datetime | None = _time()
    deadline_at: datetime | None = _time()
    timeout_s: float | None = Field(default=None)
    timeout_status: str | None = _text(nullable=True)
    sla_at: datetime | None = _time()
    passed_sla: bool = Field(default=False)
    dedupe_scope: str | None = _text(nullable=True)
    dedupe_key: str | None = _text(nullable=True)
    retry_of: int | None = _ref("pipeline_run.id")
    retry_root: int | None = _ref("pipeline_run.id")
    parent_run_id: int | None = _ref("pipeline_run.id")
    depth: int = Field(default=0)
    rides: bool = Field(default=False)
    metrics: dict[str, Any] = _json()
    s_seq: int | None = Field(sa_type=Id, default=None)
    e_seq: int | None = Field(sa_type=Id, default=None)


class IdempotencyKey(SQLModel, table=True):
    """A request that had an effect: written with the effect, so that the same request has it once.

    `answer` is the first answer, kept when it is known; without it the effect's present state is answered.
    """

    __tablename__ = "idempotency_key"
    __table_args__ = (Index("ix_idempotency_key_age", "created_at"),)
    scope: str = _text(primary_key=True)
    key: str = _text(primary_key=True)
    fingerprint: str = _text()
    effect_id: int = _id()
    status: int | None = Field(default=None)
    answer: str | None = _text(nullable=True)
    created_at: datetime = _time(nullable=False)


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
    )
    pipeline_schedule_id: int = _ref("pipeline_schedule.id", nullable=False, primary_key=True)
    execution_date: datetime = Field(sa_type=UtcDateTime, primary_key=True)
    outcome: str = _text()
    reason: str | None = _text(nullable=True)
    pipeline_run_id: int | None = _ref("pipeline_run.id")
    until: datetime | None = _time()
    slot_count: int = Field(default=1)
    revision: int = Field(sa_type=Id)
    decided_by: str = _text()
    decided_at: datetime = _time(nullable=False)


class BlockRun(SQLModel, table=True):
    """One block of one run. `attempt` counts its attempts; `outputs` is a JSON text of references."""

    __tablename__ = "block_run"
    __table_args__ = (
        one_of("status", BlockStatus, "status"),
        CheckConstraint(f"({_ENDED_BLOCK}) = (completed_at IS NOT NULL)", name="ended"),
        CheckConstraint("status <> 'running' OR attempt > 0", name="running"),
        UniqueConstraint("pipeline_run_id", "block_uuid"),
    )
    id: int = _id(primary_key=True)
    pipeline_run_id: int = _ref("pipeline_run.id", cascade=True, nullable=False)
    position: int = Field()
    block_uuid: str = _text()
    status: str = _text()
    status_reason: str | None = _text(nullable=True)
    attempt: int = Field(default=0)
    max_attempts: int = Field(default=1)
    started_at: datetime | None = _time()
    completed_at: datetime | None = _time()
    wake_at: datetime | None = _time()
    outputs: str | None = _text(nullable=True)
    error: dict[str, Any] | None = _json(nullable=True)
    metrics: dict[str, Any] | None = _json(nullable=True)
    carried_from: int | None = Field(sa_type=Id, default=None)


class BlockAttempt(SQLModel, table=True):
    """One try of a block: written before user code starts, closed with its outcome."""

    __tablename__ = "block_attempt"
    __table_args__ = (
        one_of("outcome", Outcome, "outcome", nullable=True),
        CheckConstraint("kind IN ('block', 'hook')", name="kind"),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
        CheckConstraint("(outcome IS NULL) = (e_seq IS NULL)", name="ordered"),
        Index(
            "uq_block_attempt_completed",
            "block_run_id",
            unique=True,
            sqlite_where=text("outcome = 'completed' AND kind = 'block'"),
            postgresql_where=text("outcome = 'completed' AND kind = 'block'"),
        ),
        Index(
            "uq_block_attempt_open",
            "block_run_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )
    block_run_id: int = _ref("block_run.id", cascade=True, nullable=False, primary_key=True)
    attempt: int = Field(primary_key=True)
    kind: str = _text()
    epoch: int = Field(sa_type=Id)
    node_id: str = _text()
    started_at: datetime = _time(nullable=False)
    ended_at: datetime | None = _time()
    s_seq: int = Field(sa_type=Id)
    e_seq: int | None = Field(sa_type=Id, default=None)
    outcome: str | None = _text(nullable=True)
    error: dict[str, Any] | None = _json(nullable=True)
    evidence: dict[str, Any] | None = _json(nullable=True)
    code_hash: str | None = _text(nullable=True)


class BlockLog(SQLModel, table=True):
    """A chunk of log lines, JSON text `[[µs, stream, level, text], …]`; `pos` = epoch · 2³² + n."""

    __tablename__ = "block_log"
    pipeline_run_id: int = _ref("pipeline_run.id", cascade=True, nullable=False, primary_key=True)
    pos: int = Field(sa_type=Id, primary_key=True)
    block_run_id: int | None = Field(sa_type=Id, default=None)
    attempt: int | None = Field(default=None)
    lines: str = _text()


class Limit(SQLModel, table=True):
    """How many runs of a scope may run at once; no row is no limit. The row is also the lock."""

    __tablename__ = "run_limit"
    __table_args__ = (CheckConstraint("cap >= 0", name="cap"),)
    scope: str = _text(primary_key=True)
    cap: int = Field()


class LimitHistory(SQLModel, table=True):
    """Every change of a limit by `seq`, so that overlap can be judged by the limit that held then."""

    __tablename__ = "run_limit_history"
    scope: str = _text(primary_key=True)
    seq: int = Field(sa_type=Id, primary_key=True)
    cap: int | None = Field(default=None)
    at: datetime = _time(nullable=False)
