"""Time, limits and deadlines: what a revision of a trigger said in full, reasons as data, when an SLA passed.

Columns that may be empty, and nothing else: a program of the version before works on with this schema.
"""

import sqlalchemy as sa
from alembic import op

from app.models.columns import Json, Text, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEW = (
    ("schedule_revision", "start_time", UtcDateTime),
    ("schedule_revision", "settings", Json),
    ("schedule_revision", "last_enabled_at", UtcDateTime),
    ("pipeline_schedule", "missed_policy", Text),
    ("pipeline_schedule", "missed_until", UtcDateTime),
    ("schedule_slot", "detail", Json),
    ("pipeline_run", "status_detail", Json),
    ("pipeline_run", "sla_passed_at", UtcDateTime),
    ("schedule_slot", "sla_at", UtcDateTime),
    ("schedule_slot", "sla_passed_at", UtcDateTime),
    ("run_limit", "source", Text),
    ("run_limit", "updated_at", UtcDateTime),
    ("run_limit_history", "source", Text),
)
#: What an SLA or a filter looks for, and nothing that has been found already: they stay small.
_INDEXES = (
    # Meant to be there from the start, and forgotten in 0001: the queue of waiting runs.
    ("ix_pipeline_run_waiting", "pipeline_run", "priority DESC, created_at, id", "status = 'initial'"),
    (
        "ix_pipeline_run_sla",
        "pipeline_run",
        "sla_at",
        "sla_at IS NOT NULL AND sla_passed_at IS NULL AND completed_at IS NULL",
    ),
    ("ix_pipeline_run_passed_sla", "pipeline_run", "id", "sla_passed_at IS NOT NULL"),
    ("ix_schedule_slot_sla", "schedule_slot", "sla_at", "sla_at IS NOT NULL AND sla_passed_at IS NULL"),
)


def upgrade() -> None:
    for table, column, kind in _NEW:
        op.add_column(table, sa.Column(column, kind() if isinstance(kind, type) else kind, nullable=True))

    for name, table, columns, condition in _INDEXES:
        where, named = sa.text(condition), [sa.text(column) for column in columns.split(", ")]
        op.create_index(name, table, named, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for name, table, _columns, _condition in _INDEXES:
        op.drop_index(name, table)
    for table, column, _kind in reversed(_NEW):
        op.drop_column(table, column)
