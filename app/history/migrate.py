"""Bring the schema up to date, at start or by ``python -m app db upgrade``."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.database import Database

_ADVISORY_LOCK = 0x6A6F6273  # "jobs": one migration at a time on a shared PostgreSQL


async def upgrade(database: Database) -> None:
    """Apply every migration that is missing, in one transaction; several processes may call it at once."""
    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        await connection.run_sync(_upgrade)


async def current_revision(database: Database) -> str | None:
    """Return the revision the database is at, None when it is empty."""
    async with database.read() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def head_revision() -> str:
    """Return the revision this version of the service needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return head or ""  # there is always a first migration


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _upgrade(connection: sa.Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
