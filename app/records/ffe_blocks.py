"""FFE blocks: what they are, and the questions and changes of the FFE family in SQL.

Questions about a goal name its user too, so that the index on the user serves them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.dialects import postgresql, sqlite

from app.clock import utc_now
from app.database import Database
from app.errors import Conflict
from app.jobs.ffe import MAX_BLOCK_MINUTES, MIN_BLOCK_MINUTES, BlockSize, GoalStatus
from app.jobs.fields import Identifier, Integer, Model, Moment, Number
from app.records.ffe_goals import FFE_GOALS
from app.records.record import Record, RecordAction, RecordType, check_moment

MAX_HISTORY = 500  # blocks, newest first, that estimates learn from
MAX_ENGAGEMENTS = 2_000  # blocks of other goals that a schedule goes around, soonest first

Minutes = Annotated[Number, Field(ge=0)]


class FfeBlock(Record):
    """A piece of a goal that one sitting can finish."""

    block_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier
    """Whose block it is."""
    goal_id: Identifier
    """The goal it is a piece of."""
    timestamp: Moment = Field(default_factory=utc_now)
    """When it was planned; the moment of storing, where it is not given."""
    index: Annotated[Integer, Field(ge=0)]
    """Its place in the plan."""
    title: Annotated[str, Field(min_length=1, max_length=255)]
    """What it is called."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What to do."""
    done_criterion: Annotated[str, Field(min_length=1, max_length=1000)]
    """How to tell that it is done."""
    size: BlockSize
    """How long it is, as a word."""
    estimated_minutes: Annotated[Integer, Field(ge=MIN_BLOCK_MINUTES, le=MAX_BLOCK_MINUTES)]
    """How long it should take."""
    depends_on: tuple[Identifier, ...] = ()
    """The ids of the blocks that must be done first."""
    scheduled_start: Moment | None = None
    """When to begin."""
    actual_minutes: Minutes | None = None
    """How long it took."""
    completed_at: Moment | None = None
    """When it was done; null while it is open."""
    prior_minutes: Minutes | None = None
    """What the planner estimated before the user's history scaled it; null for a block that people made."""
    path: Identifier | None = None
    """Where the planner put it in the goal's tree, ``2.3.1``; null for a block that people made."""


class Completion(Model):
    """How a block was done."""

    actual_minutes: Minutes
    """How long it took."""
    completed_at: Moment | None = None
    """When it was done; by default now. Not in the future."""


def complete(block: FfeBlock, completion: Completion, now: datetime) -> FfeBlock:
    """Return the block as done; raise Conflict when it was done at another time or took another while."""
    at = completion.completed_at or block.completed_at or now
    if block.completed_at is not None:
        if (block.actual_minutes, block.completed_at) != (completion.actual_minutes, at):
            took = f"{block.actual_minutes:g}" if block.actual_minutes is not None else "unknown"
            raise Conflict(f"This block was completed at {block.completed_at:%FT%TZ} already, in {took} minutes.")
        return block
    check_moment("completed_at", at, since=None, now=now)
    return block.model_copy(update={"actual_minutes": completion.actual_minutes, "completed_at": at})


FFE_BLOCKS = RecordType(
    name="ffe-blocks",
    model=FfeBlock,
    id_field="block_id",
    summary="Pieces of goals, 15 to 90 minutes each.",
    actions=(RecordAction(name="complete", summary="Call a block done.", body=Completion, apply=complete),),
)

# What a plan decides; when a block was first planned, how long it took and when it was done are not the plan's.
_PLANNED = (
    "index",
    "title",
    "description",
    "done_criterion",
    "size",
    "estimated_minutes",
    "depends_on",
    "scheduled_start",
    "prior_minutes",
    "path",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engagement:
    """A time at which a user is to work on another goal."""

    start: datetime
    minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """A finished block: what it took, and what had been expected without any history."""

    expected_minutes: float
    actual_minutes: float


async def read_blocks(database: Database, goal_id: str, user_id: str) -> list[FfeBlock]:
    """Return the blocks of a user's goal in the order of index and id."""
    columns = FFE_BLOCKS.table.c
    query = sa.select(FFE_BLOCKS.table).where(columns.user_id == user_id, columns.goal_id == goal_id)
    async with database.read() as connection:
        rows = (await connection.execute(query.order_by(columns.index, columns.block_id))).mappings().all()
    return FFE_BLOCKS.batch.validate_python([dict(row) for row in rows])


async def replace_plan(database: Database, goal_id: str, user_id: str, blocks: Sequence[FfeBlock]) -> int:
    """Make ``blocks`` the open planned blocks of a goal, in one transaction; return how many others it removed.

    A block that is done, also since the plan was made, stays as it is; so does one that people made.
    """
    columns = FFE_BLOCKS.table.c
    is_stale = (
        columns.user_id == user_id,
        columns.goal_id == goal_id,
        columns.path.is_not(None),
        columns.completed_at.is_(None),
        columns.block_id.not_in([block.block_id for block in blocks]),
    )
    async with database.write() as connection:
        if blocks:
            await connection.execute(_upsert_open(database), FFE_BLOCKS.batch.dump_python(list(blocks)))
        return (await connection.execute(sa.delete(FFE_BLOCKS.table).where(*is_stale))).rowcount


def _upsert_open(database: Database) -> sa.Insert:
    columns = FFE_BLOCKS.table.c
    insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
    statement = insert(FFE_BLOCKS.table)
    return statement.on_conflict_do_update(
        index_elements=[FFE_BLOCKS.id_field],
        set_={name: statement.excluded[name] for name in _PLANNED},
        where=columns.completed_at.is_(None) & (columns.user_id == statement.excluded.user_id),
    )


async def read_experience(database: Database, user_id: str) -> list[Experience]:
    """Return the user's finished blocks that took a known time, of all goals, the newest 500."""
    columns = FFE_BLOCKS.table.c
    expected = sa.func.coalesce(columns.prior_minutes, columns.estimated_minutes)
    query = (
        sa.select(expected, columns.actual_minutes)
        .where(columns.user_id == user_id, columns.completed_at.is_not(None), columns.actual_minutes > 0, expected > 0)
        .order_by(columns.completed_at.desc(), columns.block_id.desc())
        .limit(MAX_HISTORY)
    )
    return [Experience(expected_minutes=row[0], actual_minutes=row[1]) for row in await _fetch(database, query)]


async def read_engagements(database: Database, user_id: str, *, besides: str, since: datetime) -> list[Engagement]:
    """Return when the user is to work on open blocks of goals ``besides`` this one from ``since`` on, soonest first.

    Goals that are paused, completed or cancelled take no time.
    """
    columns, goals = FFE_BLOCKS.table.c, FFE_GOALS.table.c
    at_rest = sa.select(goals.goal_id).where(goals.user_id == user_id, goals.status != GoalStatus.ACTIVE)
    query = (
        sa.select(columns.scheduled_start, columns.estimated_minutes)
        .where(
            columns.user_id == user_id,
            columns.goal_id != besides,
            columns.goal_id.not_in(at_rest),
            columns.completed_at.is_(None),
            columns.scheduled_start >= since,
        )
        .order_by(columns.scheduled_start, columns.block_id)
        .limit(MAX_ENGAGEMENTS)
    )
    return [Engagement(start=row[0], minutes=row[1]) for row in await _fetch(database, query)]


async def count_finished(database: Database, user_id: str, since: datetime, until: datetime) -> int:
    """Return how many blocks of all goals the user finished with since ≤ time ≤ until."""
    done_at = FFE_BLOCKS.table.c.completed_at
    query = sa.select(sa.func.count()).where(FFE_BLOCKS.table.c.user_id == user_id, done_at >= since, done_at <= until)
    return int((await _fetch(database, query))[0][0])


async def _fetch(database: Database, query: "sa.Select[*tuple[Any, ...]]") -> Sequence[Any]:
    async with database.read() as connection:
        return list(await connection.execute(query))
