"""Which names mean a record of a user: the question that :mod:`app.references` asks, for every record kind."""

from collections.abc import Collection, Iterable
from itertools import islice

import sqlalchemy as sa

from app.database import Database
from app.errors import Misconfigured
from app.records.record import AnyRecordType

_TOGETHER = 400  # names of one statement

Named = tuple[str, str]  # a user, and what they call it


async def read_known(
    database: Database, record_type: AnyRecordType, fields: Collection[str], wanted: Iterable[Named]
) -> set[Named]:
    """Return those of the wanted that are, in one of the fields, what a record of that user is called."""
    pairs, known = iter(dict.fromkeys(wanted)), set[Named]()
    owner = _owner(record_type)
    while some := list(islice(pairs, _TOGETHER)):
        users, names = {user for user, _ in some}, {name for _, name in some}
        async with database.read() as connection:
            for field in fields:
                column = record_type.table.c[field]
                query = sa.select(owner, column).distinct().where(owner.in_(users), column.in_(names))
                known |= {(user, name) for user, name in await connection.execute(query)}
    return known


async def list_names(
    database: Database, record_type: AnyRecordType, field: str, user_id: str, *, limit: int
) -> list[str]:
    """Return the different values of a field in a user's records, in their order, at most ``limit``."""
    column = record_type.table.c[field]
    query = sa.select(column).distinct().where(_owner(record_type) == user_id).order_by(column).limit(limit)
    async with database.read() as connection:
        return list((await connection.execute(query)).scalars())


def _owner(record_type: AnyRecordType) -> "sa.Column[str]":
    if record_type.user_field is None:
        raise Misconfigured(f"{record_type.name} belong to nobody, so that no name is a user's own.")
    owner: sa.Column[str] = record_type.table.c[record_type.user_field]
    return owner
