"""Which queues are paused, since when, and by whom. Redis is told, and told again after it has lost it."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.database import Database
from app.history.tables import pauses


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A queue from which nothing is taken."""

    queue: str
    paused_at: datetime
    paused_by: str


async def read_pauses(database: Database) -> dict[str, Pause]:
    """Return every pause by the name of its queue."""
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(pauses))).mappings().all()
    return {row["queue"]: Pause(**row) for row in rows}


async def add_pause(database: Database, pause: Pause) -> bool:
    """Pause a queue; return False if it was paused already, which keeps the time and the name of who did that."""
    insert = (postgresql if database.dialect == "postgresql" else sqlite).insert(pauses)
    values = {name: getattr(pause, name) for name in Pause.__dataclass_fields__}
    statement = insert.values(values).on_conflict_do_nothing().returning(pauses.c.queue)
    async with database.write() as connection:
        return (await connection.execute(statement)).first() is not None


async def end_pause(database: Database, queue: str) -> bool:
    """Let a queue go on; return False if it was not paused."""
    statement = sa.delete(pauses).where(pauses.c.queue == queue).returning(pauses.c.queue)
    async with database.write() as connection:
        return (await connection.execute(statement)).first() is not None
