"""The database and the secret of an installation, opened for one command that looks after credentials."""

import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.credentials.acts import Act, record_act
from app.credentials.secret import ServerSecret, open_secret
from app.database import Database, open_database
from app.errors import ServiceError
from app.history.migrate import upgrade
from app.records.store import Records
from app.settings import Settings, read_settings

BY = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What such a command works with."""

    database: Database
    secret: ServerSecret


@asynccontextmanager
async def looked_at(settings: Settings | None = None) -> AsyncIterator[Database]:
    """Open the database that the settings name, its schema up to date."""
    settings = settings or read_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    try:
        if settings.db_auto_upgrade:
            await upgrade(database)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def opened(action: str, resource: str) -> AsyncIterator[Place]:
    """Open the installation for one change, of which an audit entry is left, however it ends."""
    settings = read_settings()
    async with looked_at(settings) as database:
        result = "internal_error"
        try:
            yield Place(database=database, secret=open_secret(settings))
            result = "success"
        except ServiceError as error:
            result = error.code
            raise
        finally:
            details = {"system_user": _system_user()}
            act = Act(actor=None, action=action, resource=resource, result=result, component="cli", details=details)
            await record_act(Records(database), act)


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
