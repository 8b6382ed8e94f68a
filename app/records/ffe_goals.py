"""FFE goals: what they are, and how the planner sets one without touching what people keep in it."""

from typing import Annotated

from pydantic import Field
from sqlalchemy.dialects import postgresql, sqlite

from app.clock import utc_now
from app.database import Database
from app.jobs.ffe import Complexity, GoalDescription, GoalStatus
from app.jobs.fields import Identifier, Integer, Moment
from app.records.record import Record, RecordType


class FfeGoal(Record):
    """Something that a user wants to reach."""

    goal_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier
    """Whose goal it is."""
    timestamp: Moment = Field(default_factory=utc_now)
    """When it was set; the moment of storing, where it is not given."""
    description: GoalDescription
    """What is to be reached."""
    importance: Annotated[Integer, Field(ge=1, le=10)] = 5
    """How much it matters, 1–10."""
    complexity: Complexity = Complexity.MEDIUM
    """How big it is."""
    status: GoalStatus = GoalStatus.ACTIVE
    """Whether it is being worked on."""
    deadline: Moment | None = None
    """By when it should be reached."""
    parent: Identifier | None = None
    """The id of the goal that it is a part of."""


FFE_GOALS = RecordType(
    name="ffe-goals",
    model=FfeGoal,
    id_field="goal_id",
    summary="Goals that users want to reach.",
)

_PLANNED = ("description", "complexity")


async def set_goal(database: Database, goal: FfeGoal) -> None:
    """Store a goal that is new; of a stored one of the same user, change description and complexity alone.

    Another user's goal stays as it is.
    """
    insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
    statement = insert(FFE_GOALS.table).values(goal.model_dump())
    statement = statement.on_conflict_do_update(
        index_elements=[FFE_GOALS.id_field],
        set_={name: statement.excluded[name] for name in _PLANNED},
        where=FFE_GOALS.table.c.user_id == statement.excluded.user_id,
    )
    async with database.write() as connection:
        await connection.execute(statement)
