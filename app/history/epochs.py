"""The installation's name and the counter of its epochs, as SQL keeps them. One row."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.clock import new_id, utc_now
from app.database import Database
from app.history.tables import epochs

_ONLY = 1  # the key of the only row


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Which installation this is, and how often its Redis was rebuilt."""

    installation: str
    counter: int


async def read_epoch(database: Database) -> Epoch:
    """Return the epoch; the first who asks gives the installation its name."""
    query = sa.select(epochs.c.installation, epochs.c.counter)
    async with database.read() as connection:
        row = (await connection.execute(query)).mappings().first()
    if row is not None:
        return Epoch(**row)
    insert = (postgresql if database.dialect == "postgresql" else sqlite).insert(epochs)
    first = insert.values(id=_ONLY, installation=new_id(), counter=0, changed_at=utc_now()).on_conflict_do_nothing()
    async with database.write() as connection:
        await connection.execute(first)
        return Epoch(**(await connection.execute(query)).mappings().one())


async def advance_epoch(database: Database, *, beyond: int) -> Epoch:
    """Begin the next epoch, later than this database's last and than ``beyond``; return it."""
    higher = sa.case((epochs.c.counter > beyond, epochs.c.counter), else_=beyond)
    statement = sa.update(epochs).values(counter=higher + 1, changed_at=utc_now())
    async with database.write() as connection:
        row = await connection.execute(statement.returning(epochs.c.installation, epochs.c.counter))
        return Epoch(**row.mappings().one())
