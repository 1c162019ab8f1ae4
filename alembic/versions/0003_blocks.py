"""Blocks, complete: hooks beside a block's own attempts, children of dynamic blocks, secrets. And what pruning needs.

Columns that may be empty, indexes and tables of their own: a program of the version before works on with this schema.
"""

import sqlalchemy as sa
from alembic import op

from app.models.columns import Id, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: By them is found what is old, and whether anything names it.
_INDEXES = (
    ("ix_pipeline_run_completed", "pipeline_run", ["pipeline_uuid", "completed_at", "id"], "completed_at"),
    ("ix_pipeline_run_retry_of", "pipeline_run", ["retry_of"], "retry_of"),
    ("ix_pipeline_run_retry_root", "pipeline_run", ["retry_root"], "retry_root"),
    ("ix_pipeline_run_owner", "pipeline_run", ["owner"], "owner"),
    ("ix_block_run_carried", "block_run", ["carried_from"], "carried_from"),
)


def upgrade() -> None:
    op.add_column("pipeline_schedule", sa.Column("pruned_until", UtcDateTime(), nullable=True))
    op.create_table(
        "tombstone",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_tombstone")),
    )
    for name, table, columns, there in _INDEXES:
        where = sa.text(f"{there} IS NOT NULL")
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
    op.add_column("block_attempt", sa.Column("hook", sa.Text(), nullable=True))
    op.add_column("block_run", sa.Column("parent_id", Id, nullable=True))
    op.add_column("block_run", sa.Column("item_index", sa.Integer(), nullable=True))
    op.add_column("block_run", sa.Column("children", sa.Integer(), nullable=True))
    op.create_table(
        "secret",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secret")),
    )


def downgrade() -> None:
    for name, table, _columns, _there in _INDEXES:
        op.drop_index(name, table)
    op.drop_table("tombstone")
    op.drop_column("pipeline_schedule", "pruned_until")
    op.drop_table("secret")
    op.drop_column("block_run", "children")
    op.drop_column("block_run", "item_index")
    op.drop_column("block_run", "parent_id")
    op.drop_column("block_attempt", "hook")
