"""The core: triggers, slots, runs, blocks, attempts, logs, nodes, limits."""

import sqlalchemy as sa
from alembic import op

from app.models.columns import Id, Json, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # cache 1: the order of starts and ends must be the order in which the numbers are taken
        op.execute("CREATE SEQUENCE event_seq CACHE 1")
    op.create_table(
        "id_block",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_id_block")),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("effect_id", Id, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_idempotency_key")),
    )
    op.create_index("ix_idempotency_key_age", "idempotency_key", ["created_at"], unique=False)
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_meta")),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Text(), nullable=False),
        sa.Column("pid", Id, nullable=False),
        sa.Column("pid_started", Id, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('stopped', 'fenced')) = (ended_at IS NOT NULL)", name=op.f("ck_node_ended")
        ),
        sa.CheckConstraint("state IN ('live', 'draining', 'stopped', 'fenced')", name=op.f("ck_node_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
    )
    op.create_table(
        "pipeline_schedule",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("pipeline_uuid", sa.Text(), nullable=False),
        sa.Column("schedule_type", sa.Text(), nullable=False),
        sa.Column("schedule_interval", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("start_time", UtcDateTime(), nullable=True),
        sa.Column("last_enabled_at", UtcDateTime(), nullable=True),
        sa.Column("variables", Json, nullable=False),
        sa.Column("settings", Json, nullable=False),
        sa.Column("sla", sa.Integer(), nullable=True),
        sa.Column("tags", Json, nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("token_hash", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("revision", Id, nullable=False),
        sa.Column("cursor_at", UtcDateTime(), nullable=True),
        sa.Column("next_fire_at", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint("managed_by IN ('file', 'api')", name=op.f("ck_pipeline_schedule_managed_by")),
        sa.CheckConstraint(
            "schedule_type IN ('time', 'event', 'api')", name=op.f("ck_pipeline_schedule_schedule_type")
        ),
        sa.CheckConstraint("status IN ('active', 'inactive')", name=op.f("ck_pipeline_schedule_status")),
        sa.CheckConstraint("sla > 0", name=op.f("ck_pipeline_schedule_sla")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipeline_schedule")),
    )
    op.create_index(
        "ix_pipeline_schedule_due",
        "pipeline_schedule",
        ["next_fire_at"],
        unique=False,
        sqlite_where=sa.text("next_fire_at IS NOT NULL"),
        postgresql_where=sa.text("next_fire_at IS NOT NULL"),
    )
    op.create_index(
        "uq_pipeline_schedule_live_name",
        "pipeline_schedule",
        ["pipeline_uuid", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "pipeline_version",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("pipeline_uuid", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_pipeline_version")),
    )
    op.create_table(
        "run_limit",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("cap", sa.Integer(), nullable=False),
        sa.CheckConstraint("cap >= 0", name=op.f("ck_run_limit_cap")),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_run_limit")),
    )
    op.create_table(
        "run_limit_history",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("seq", Id, nullable=False),
        sa.Column("cap", sa.Integer(), nullable=True),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "seq", name=op.f("pk_run_limit_history")),
    )
    op.create_table(
        "node_journal",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("seq", Id, nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_node_journal_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_journal")),
    )
    op.create_table(
        "pipeline_run",
        sa.Column("id", Id, nullable=False),
        sa.Column("pipeline_uuid", sa.Text(), nullable=False),
        sa.Column("pipeline_hash", sa.Text(), nullable=False),
        sa.Column("pipeline_schedule_id", Id, nullable=True),
        sa.Column("backfill_id", Id, nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("execution_date", UtcDateTime(), nullable=False),
        sa.Column("variables", Json, nullable=False),
        sa.Column("event_variables", Json, nullable=False),
        sa.Column("options", Json, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("concurrency_key", sa.Text(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("epoch", Id, nullable=False),
        sa.Column("recoveries", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.Column("cancel_requested_at", UtcDateTime(), nullable=True),
        sa.Column("deadline_at", UtcDateTime(), nullable=True),
        sa.Column("timeout_s", sa.Float(), nullable=True),
        sa.Column("timeout_status", sa.Text(), nullable=True),
        sa.Column("sla_at", UtcDateTime(), nullable=True),
        sa.Column("passed_sla", sa.Boolean(), nullable=False),
        sa.Column("dedupe_scope", sa.Text(), nullable=True),
        sa.Column("dedupe_key", sa.Text(), nullable=True),
        sa.Column("retry_of", Id, nullable=True),
        sa.Column("retry_root", Id, nullable=True),
        sa.Column("parent_run_id", Id, nullable=True),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("rides", sa.Boolean(), nullable=False),
        sa.Column("metrics", Json, nullable=False),
        sa.Column("s_seq", Id, nullable=True),
        sa.Column("e_seq", Id, nullable=True),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'failed')) = (completed_at IS NOT NULL)",
            name=op.f("ck_pipeline_run_ended"),
        ),
        sa.CheckConstraint(
            "cause IN ('tick', 'api', 'event', 'backfill', 'retry', 'pipeline', 'cli')",
            name=op.f("ck_pipeline_run_cause"),
        ),
        sa.CheckConstraint(
            "status <> 'running' OR (owner IS NOT NULL AND started_at IS NOT NULL)",
            name=op.f("ck_pipeline_run_owned"),
        ),
        sa.CheckConstraint(
            "status IN ('initial', 'running', 'completed', 'failed', 'cancelled')",
            name=op.f("ck_pipeline_run_status"),
        ),
        sa.CheckConstraint(
            "timeout_status IS NULL OR timeout_status IN ('failed', 'cancelled')",
            name=op.f("ck_pipeline_run_timeout"),
        ),
        sa.CheckConstraint("(started_at IS NULL) = (s_seq IS NULL)", name=op.f("ck_pipeline_run_started")),
        sa.CheckConstraint("e_seq IS NULL OR s_seq IS NOT NULL", name=op.f("ck_pipeline_run_ordered")),
        sa.ForeignKeyConstraint(["owner"], ["node.id"], name=op.f("fk_pipeline_run_owner")),
        sa.ForeignKeyConstraint(
            ["parent_run_id"], ["pipeline_run.id"], name=op.f("fk_pipeline_run_parent_run_id")
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_hash"], ["pipeline_version.hash"], name=op.f("fk_pipeline_run_pipeline_hash")
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_schedule_id"],
            ["pipeline_schedule.id"],
            name=op.f("fk_pipeline_run_pipeline_schedule_id"),
        ),
        sa.ForeignKeyConstraint(["retry_of"], ["pipeline_run.id"], name=op.f("fk_pipeline_run_retry_of")),
        sa.ForeignKeyConstraint(["retry_root"], ["pipeline_run.id"], name=op.f("fk_pipeline_run_retry_root")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipeline_run")),
        sa.UniqueConstraint(
            "dedupe_scope", "dedupe_key", name=op.f("uq_pipeline_run_dedupe_scope_dedupe_key")
        ),
    )
    op.create_index(
        "ix_pipeline_run_cancelling",
        "pipeline_run",
        ["owner"],
        unique=False,
        sqlite_where=sa.text("cancel_requested_at IS NOT NULL AND status = 'running'"),
        postgresql_where=sa.text("cancel_requested_at IS NOT NULL AND status = 'running'"),
    )
    op.create_index(
        "ix_pipeline_run_parent",
        "pipeline_run",
        ["parent_run_id"],
        unique=False,
        sqlite_where=sa.text("parent_run_id IS NOT NULL"),
        postgresql_where=sa.text("parent_run_id IS NOT NULL"),
    )
    op.create_index("ix_pipeline_run_pipeline", "pipeline_run", ["pipeline_uuid", "id"], unique=False)
    op.create_index(
        "ix_pipeline_run_running",
        "pipeline_run",
        ["owner", "pipeline_schedule_id", "pipeline_uuid"],
        unique=False,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index("ix_pipeline_run_schedule", "pipeline_run", ["pipeline_schedule_id", "id"], unique=False)
    op.create_index(
        "uq_pipeline_run_live_retry",
        "pipeline_run",
        ["retry_root"],
        unique=True,
        sqlite_where=sa.text("retry_root IS NOT NULL AND completed_at IS NULL"),
        postgresql_where=sa.text("retry_root IS NOT NULL AND completed_at IS NULL"),
    )
    op.create_table(
        "schedule_revision",
        sa.Column("schedule_id", Id, nullable=False),
        sa.Column("revision", Id, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("schedule_interval", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("cursor_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["pipeline_schedule.id"], name=op.f("fk_schedule_revision_schedule_id")
        ),
        sa.PrimaryKeyConstraint("schedule_id", "revision", name=op.f("pk_schedule_revision")),
    )
    op.create_table(
        "block_log",
        sa.Column("pipeline_run_id", Id, nullable=False),
        sa.Column("pos", Id, nullable=False),
        sa.Column("block_run_id", Id, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("lines", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_run_id"],
            ["pipeline_run.id"],
            name=op.f("fk_block_log_pipeline_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("pipeline_run_id", "pos", name=op.f("pk_block_log")),
    )
    op.create_table(
        "block_run",
        sa.Column("id", Id, nullable=False),
        sa.Column("pipeline_run_id", Id, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("block_uuid", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.Column("wake_at", UtcDateTime(), nullable=True),
        sa.Column("outputs", sa.Text(), nullable=True),
        sa.Column("error", Json, nullable=True),
        sa.Column("metrics", Json, nullable=True),
        sa.Column("carried_from", Id, nullable=True),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'completed', 'condition_failed', 'failed', 'skipped', 'upstream_failed')) = (completed_at IS NOT NULL)",
            name=op.f("ck_block_run_ended"),
        ),
        sa.CheckConstraint("status <> 'running' OR attempt > 0", name=op.f("ck_block_run_running")),
        sa.CheckConstraint(
            "status IN ('initial', 'queued', 'running', 'completed', 'failed', 'cancelled', 'upstream_failed', 'condition_failed', 'skipped')",
            name=op.f("ck_block_run_status"),
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_run_id"],
            ["pipeline_run.id"],
            name=op.f("fk_block_run_pipeline_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_block_run")),
        sa.UniqueConstraint(
            "pipeline_run_id", "block_uuid", name=op.f("uq_block_run_pipeline_run_id_block_uuid")
        ),
    )
    op.create_table(
        "schedule_slot",
        sa.Column("pipeline_schedule_id", Id, nullable=False),
        sa.Column("execution_date", UtcDateTime(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("pipeline_run_id", Id, nullable=True),
        sa.Column("until", UtcDateTime(), nullable=True),
        sa.Column("slot_count", sa.Integer(), nullable=False),
        sa.Column("revision", Id, nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(outcome = 'run') = (pipeline_run_id IS NOT NULL)", name=op.f("ck_schedule_slot_has_run")
        ),
        sa.CheckConstraint("outcome IN ('run', 'skipped', 'missed')", name=op.f("ck_schedule_slot_outcome")),
        sa.CheckConstraint(
            "slot_count >= 1 AND (slot_count = 1) = (until IS NULL)", name=op.f("ck_schedule_slot_gap")
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_run_id"], ["pipeline_run.id"], name=op.f("fk_schedule_slot_pipeline_run_id")
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_schedule_id"],
            ["pipeline_schedule.id"],
            name=op.f("fk_schedule_slot_pipeline_schedule_id"),
        ),
        sa.PrimaryKeyConstraint("pipeline_schedule_id", "execution_date", name=op.f("pk_schedule_slot")),
    )
    op.create_index("ix_schedule_slot_run", "schedule_slot", ["pipeline_run_id"], unique=False)
    op.create_table(
        "block_attempt",
        sa.Column("block_run_id", Id, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("epoch", Id, nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("s_seq", Id, nullable=False),
        sa.Column("e_seq", Id, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", Json, nullable=True),
        sa.Column("evidence", Json, nullable=True),
        sa.Column("code_hash", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('block', 'hook')", name=op.f("ck_block_attempt_kind")),
        sa.CheckConstraint(
            "outcome IS NULL OR outcome IN ('completed', 'failed', 'timeout', 'cancelled', 'crashed', 'lost')",
            name=op.f("ck_block_attempt_outcome"),
        ),
        sa.CheckConstraint("(outcome IS NULL) = (e_seq IS NULL)", name=op.f("ck_block_attempt_ordered")),
        sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_block_attempt_ended")),
        sa.ForeignKeyConstraint(
            ["block_run_id"], ["block_run.id"], name=op.f("fk_block_attempt_block_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("block_run_id", "attempt", name=op.f("pk_block_attempt")),
    )
    op.create_index(
        "uq_block_attempt_completed",
        "block_attempt",
        ["block_run_id"],
        unique=True,
        sqlite_where=sa.text("outcome = 'completed' AND kind = 'block'"),
        postgresql_where=sa.text("outcome = 'completed' AND kind = 'block'"),
    )
    op.create_index(
        "uq_block_attempt_open",
        "block_attempt",
        ["block_run_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_block_attempt_open",
        table_name="block_attempt",
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.drop_index(
        "uq_block_attempt_completed",
        table_name="block_attempt",
        sqlite_where=sa.text("outcome = 'completed' AND kind = 'block'"),
        postgresql_where=sa.text("outcome = 'completed' AND kind = 'block'"),
    )
    op.drop_table("block_attempt")
    op.drop_index("ix_schedule_slot_run", table_name="schedule_slot")
    op.drop_table("schedule_slot")
    op.drop_table("block_run")
    op.drop_table("block_log")
    op.drop_table("schedule_revision")
    op.drop_index(
        "uq_pipeline_run_live_retry",
        table_name="pipeline_run",
        sqlite_where=sa.text("retry_root IS NOT NULL AND completed_at IS NULL"),
        postgresql_where=sa.text("retry_root IS NOT NULL AND completed_at IS NULL"),
    )
    op.drop_index("ix_pipeline_run_schedule", table_name="pipeline_run")
    op.drop_index(
        "ix_pipeline_run_running",
        table_name="pipeline_run",
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.drop_index("ix_pipeline_run_pipeline", table_name="pipeline_run")
    op.drop_index(
        "ix_pipeline_run_parent",
        table_name="pipeline_run",
        sqlite_where=sa.text("parent_run_id IS NOT NULL"),
        postgresql_where=sa.text("parent_run_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_pipeline_run_cancelling",
        table_name="pipeline_run",
        sqlite_where=sa.text("cancel_requested_at IS NOT NULL AND status = 'running'"),
        postgresql_where=sa.text("cancel_requested_at IS NOT NULL AND status = 'running'"),
    )
    op.drop_table("pipeline_run")
    op.drop_table("node_journal")
    op.drop_table("run_limit_history")
    op.drop_table("run_limit")
    op.drop_table("pipeline_version")
    op.drop_index(
        "uq_pipeline_schedule_live_name",
        table_name="pipeline_schedule",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index(
        "ix_pipeline_schedule_due",
        table_name="pipeline_schedule",
        sqlite_where=sa.text("next_fire_at IS NOT NULL"),
        postgresql_where=sa.text("next_fire_at IS NOT NULL"),
    )
    op.drop_table("pipeline_schedule")
    op.drop_table("node")
    op.drop_table("meta")
    op.drop_index("ix_idempotency_key_age", table_name="idempotency_key")
    op.drop_table("idempotency_key")
    op.drop_table("id_block")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP SEQUENCE event_seq")
