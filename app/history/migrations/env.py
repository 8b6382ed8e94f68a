"""Alembic's entry point. The connection always comes from ``app.history.migrate``, inside its transaction."""

from alembic import context

from app.database import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
