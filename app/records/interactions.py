"""Interactions: what a user asked and what was answered, and the questions that the EDM family asks of them in SQL."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from app.database import Database
from app.jobs.fields import Identifier, Moment
from app.records.record import Record, RecordType

Text = Annotated[str, Field(max_length=200_000)]


class Interaction(Record):
    """One question to an AI and its answer."""

    interaction_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier
    """Who asked."""
    session_id: Identifier | None = None
    """The session it belongs to."""
    timestamp: Moment
    """When it took place."""
    prompt: Text = ""
    """What the user said."""
    response: Text = ""
    """What the AI answered."""
    scanned_at: Moment | None = None
    """When it was looked through for epistemic debts; null until then, and again once it is stored anew."""


INTERACTIONS = RecordType(
    name="interactions",
    model=Interaction,
    id_field="interaction_id",
    summary="What users asked an AI and what it answered.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionWindow:
    """Which interactions a question is about; both ends belong to it."""

    user_id: str | None  # None is all users
    since: datetime
    until: datetime

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return it as the terms of a WHERE."""
        columns = INTERACTIONS.table.c
        terms = [columns.timestamp >= self.since, columns.timestamp <= self.until]
        return terms if self.user_id is None else [columns.user_id == self.user_id, *terms]


async def count_unscanned(database: Database, window: InteractionWindow) -> int:
    """Count the interactions that were not looked through."""
    counted = sa.select(sa.func.count()).select_from(INTERACTIONS.table)
    async with database.read() as connection:
        return (await connection.execute(counted.where(*window.conditions(), _is_unscanned()))).scalar_one()


async def read_unscanned_users(
    database: Database, window: InteractionWindow, *, batch: int = 100
) -> AsyncIterator[list[str]]:
    """Yield the users who have interactions that were not looked through, in the order of their ids."""
    user = INTERACTIONS.table.c.user_id
    ordered = sa.select(user).distinct().where(*window.conditions(), _is_unscanned()).order_by(user).limit(batch)
    page = ordered
    while True:
        async with database.read() as connection:
            users = list((await connection.execute(page)).scalars())
        if users:
            yield users
        if len(users) < batch:
            return
        page = ordered.where(user > users[-1])


async def read_interactions(
    database: Database, window: InteractionWindow, *, batch: int = 100
) -> AsyncIterator[list[Interaction]]:
    """Yield a window's interactions, oldest first, ``batch`` at a time."""
    columns = INTERACTIONS.table.c
    position = sa.tuple_(columns.timestamp, columns.interaction_id)
    ordered = sa.select(INTERACTIONS.table).where(*window.conditions()).order_by(*position).limit(batch)
    page = ordered
    while True:
        found = await _fetch(database, page)
        if found:
            yield found
        if len(found) < batch:
            return
        # Typed, or SQLite compares its stored text with the driver's own spelling of a time.
        reached = (sa.literal(found[-1].timestamp, columns.timestamp.type), sa.literal(found[-1].interaction_id))
        page = ordered.where(position > sa.tuple_(*reached))


async def newest_ids(database: Database, window: InteractionWindow, *, limit: int) -> list[str]:
    """Return the ids of a window's newest interactions, the newest first."""
    columns = INTERACTIONS.table.c
    newest_first = (columns.timestamp.desc(), columns.interaction_id.desc())
    chosen = sa.select(columns.interaction_id).where(*window.conditions()).order_by(*newest_first).limit(limit)
    async with database.read() as connection:
        return list((await connection.execute(chosen)).scalars())


async def find_interactions(database: Database, user_id: str, ids: Sequence[str]) -> list[Interaction]:
    """Return those of the interactions that are the user's, in the order of their ids."""
    columns = INTERACTIONS.table.c
    chosen = sa.select(INTERACTIONS.table).where(columns.user_id == user_id, columns.interaction_id.in_(ids))
    return await _fetch(database, chosen.order_by(columns.interaction_id))


def mark_scanned(ids: Sequence[str], at: datetime) -> sa.Update:
    """Return the statement that marks interactions as looked through."""
    columns = INTERACTIONS.table.c
    return sa.update(INTERACTIONS.table).where(columns.interaction_id.in_(ids), _is_unscanned()).values(scanned_at=at)


def _is_unscanned() -> sa.ColumnElement[bool]:
    return INTERACTIONS.table.c.scanned_at.is_(None)


async def _fetch(database: Database, query: "sa.Select[Any]") -> list[Interaction]:
    async with database.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
    return INTERACTIONS.batch.validate_python([dict(row) for row in rows])
