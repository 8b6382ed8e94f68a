"""ARI snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``ari_snapshots``."""
    op.create_table(
        "ari_snapshots",
        sa.Column("snapshot_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("decision_quality", sa.Float, nullable=False),
        sa.Column("skill_development", sa.Float, nullable=False),
        sa.Column("ai_reliance", sa.Float, nullable=False),
        sa.Column("bottleneck_resolution", sa.Float, nullable=False),
        sa.Column("user_confidence", sa.Float, nullable=False),
        sa.Column("engagement", sa.Float, nullable=False),
        sa.Column("autonomy_perception", sa.Float, nullable=False),
        sa.Column("autonomy_retention", sa.Float, nullable=False),
        sa.Column("delta_agency", sa.Float, nullable=False),
        sa.Column("task_id", sa.Text),
        sa.Column("task_type", sa.Text),
        sa.Column("bhir", sa.Float),
        sa.Column("task_efficacy", sa.Float),
        sa.Column("user_skill_before", sa.Float),
        sa.Column("user_skill_after", sa.Float),
        sa.Column("task_description", sa.Text),
        sa.Column("task_complexity", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("metadata", sa.Text),
        sa.PrimaryKeyConstraint("snapshot_id", name="pk_ari_snapshots"),
    )
    op.create_index(
        "ix_ari_snapshots_user_id_timestamp_snapshot_id", "ari_snapshots", ["user_id", "timestamp", "snapshot_id"]
    )
    op.create_index("ix_ari_snapshots_timestamp_snapshot_id", "ari_snapshots", ["timestamp", "snapshot_id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("ari_snapshots")
