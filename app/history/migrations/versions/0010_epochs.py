"""The epoch of the installation, and the pauses of queues."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``epochs`` and ``queue_pauses``."""
    op.create_table(
        "epochs",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("installation", sa.Text, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_epochs"),
        sa.CheckConstraint("id = 1", name=op.f("ck_epochs_only")),
    )
    op.create_table(
        "queue_pauses",
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("paused_at", _TIME, nullable=False),
        sa.Column("paused_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("queue", name="pk_queue_pauses"),
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("queue_pauses")
    op.drop_table("epochs")
