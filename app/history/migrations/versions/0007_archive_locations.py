"""Where archives are being written."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create ``archive_locations``."""
    op.create_table(
        "archive_locations",
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("location", name="pk_archive_locations"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("archive_locations")
