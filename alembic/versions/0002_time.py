"""Time, limits and deadlines: what a revision of a trigger said in full, reasons as data, when an SLA passed.

Columns that may be empty, and nothing else: a program of the version before works on with this schema.
"""

import sqlalchemy as sa
from alembic import op

from app.models.columns import Json, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEW = (
    ("schedule_revision", "start_time", UtcDateTime),
    ("schedule_revision", "settings", Json),
    ("schedule_slot", "detail", Json),
    ("pipeline_run", "status_detail", Json),
    ("pipeline_run", "sla_passed_at", UtcDateTime),
)


def upgrade() -> None:
    for table, column, kind in _NEW:
        op.add_column(table, sa.Column(column, kind() if isinstance(kind, type) else kind, nullable=True))


def downgrade() -> None:
    for table, column, _kind in reversed(_NEW):
        op.drop_column(table, column)
