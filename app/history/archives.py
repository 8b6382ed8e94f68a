"""Where archives are being written outside of the disk, so that whoever archives next can finish them first."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.database import Database
from app.history.tables import archive_locations as table


async def remember_location(database: Database, location: str, now: datetime) -> None:
    """Note, before anything is written there, that something may be pending at a location."""
    insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
    noted = insert(table).values(location=location, since=now).on_conflict_do_nothing()
    async with database.write() as connection:
        await connection.execute(noted)


async def read_locations(database: Database) -> list[str]:
    """Return the locations at which something may be pending, the longest remembered first."""
    async with database.read() as connection:
        return list((await connection.execute(sa.select(table.c.location).order_by(table.c.since))).scalars())


async def forget_location(database: Database, location: str) -> None:
    """Note that nothing is pending at a location."""
    async with database.write() as connection:
        await connection.execute(sa.delete(table).where(table.c.location == location))
