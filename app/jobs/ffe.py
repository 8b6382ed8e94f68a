"""The FFE family: goals broken down into blocks of 15–90 minutes, and how they come along. The contract; pure data."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from app.jobs.contract import LIGHT, Family, JobType, RetryPolicy, TaskType
from app.jobs.ffe_planning import PlannedSchedule, Planner
from app.jobs.fields import Identifier, Model, Moment, Params, Result

MIN_BLOCK_MINUTES = 15
MAX_BLOCK_MINUTES = 90
STOP_AFTER_BLOCKS = 5  # blocks of one UTC day after which a person should stop

GoalDescription = Annotated[str, Field(strict=True, min_length=3, max_length=1000)]


class Complexity(StrEnum):
    """How big a goal is, before the user's own history is known."""

    SIMPLE = "simple"
    """3 parts over 8 hours."""
    MEDIUM = "medium"
    """5 parts over 16 hours."""
    COMPLEX = "complex"
    """7 parts over 24 hours."""


class GoalStatus(StrEnum):
    """Whether a goal is being worked on."""

    ACTIVE = "active"
    """It is."""
    PAUSED = "paused"
    """Not for the time being."""
    COMPLETED = "completed"
    """It has been reached."""
    CANCELLED = "cancelled"
    """It has been given up."""


class BlockSize(StrEnum):
    """How long a block is, as a word."""

    SMALL = "small"
    """Up to 30 minutes."""
    MEDIUM = "medium"
    """Up to 60 minutes."""
    LARGE = "large"
    """Up to 90 minutes."""


class Intent(StrEnum):
    """What a goal is about, which decides the steps it is broken into."""

    LEARN = "learn"
    """Knowing or being able to do something."""
    BUILD = "build"
    """Making a thing that works."""
    WRITE = "write"
    """Making a text."""
    ORGANIZE = "organize"
    """Bringing things or people into order."""
    DEFAULT = "default"
    """Anything else."""


class PlanGoalParams(Params):
    """Break a goal down, and store it with its blocks."""

    goal_id: Identifier
    """The goal; it is created when there is none of this id."""
    user_id: Identifier
    """Whose goal it is."""
    goal_description: GoalDescription
    """What is to be reached, in the user's own words."""
    complexity_level: Complexity = Complexity.MEDIUM
    """How big it is."""


class AtomicBlock(Model):
    """One stored block, as the plan sees it."""

    block_index: NonNegativeInt
    """Its place in the plan, from 1."""
    block_id: str
    """The record's id; the same goal and place give the same one."""
    path: str
    """Where it stands in the tree: part, step and session, as ``2.3.1``."""
    title: str
    """What it is called."""
    description: str
    """What to do."""
    done_criterion: str
    """How to tell that it is done."""
    size: BlockSize
    """How long it is, as a word."""
    estimated_minutes: int
    """How long it should take, 15–90 minutes."""
    depends_on: tuple[str, ...]
    """The ids of the blocks that must be done first."""
    scheduled_start: Moment | None
    """When to begin; null when it does not fit before the deadline, or is done."""
    completed_at: Moment | None
    """When it was done; a block that is done stays as it is, however often the goal is planned again."""
    is_vital: bool
    """Whether it is among the blocks that bring 80 % of the outcome for the least time."""
    is_critical: bool
    """Whether it lies on the critical path."""
    slack_minutes: int | None
    """How long it can wait without making the goal later, were there help enough; null for a block that is done."""


class GoalPart(Model):
    """One of the goal's parts, 3, 5 or 7 by templates: the level of the plan above its blocks."""

    path: str
    """Its place, from 1."""
    title: str
    """The steps it is made of."""
    estimated_minutes: int
    """How long its blocks take together, as decomposed now."""
    block_indexes: tuple[int, ...]
    """The blocks it is made of."""


class ScopingPass(Model):
    """One round of the decomposition: what was too large is split, and the vital part found again."""

    number: int
    """From 1; at most 5."""
    parts: int
    """How many parts there are after it."""
    vital_parts: int
    """The fewest parts, best value for time first, that bring 80 % of the outcome."""
    vital_minutes: int
    """How long the vital parts take."""


class CriticalPath(Model):
    """The longest chain of blocks that wait for each other: no help from others can make the goal quicker."""

    block_indexes: tuple[int, ...]
    """The blocks of the chain in their order; blocks that are done count no time."""
    minutes: int
    """How long the chain takes."""


class Estimates(Model):
    """How long the blocks that are still open take together; the quantiles by PERT Monte Carlo."""

    expected_minutes: float
    """The mean."""
    p50_minutes: float
    """Half of the simulated plans take no longer."""
    p80_minutes: float
    """80 % of the simulated plans take no longer."""
    p95_minutes: float
    """95 % of the simulated plans take no longer."""
    samples: int
    """How many plans were simulated, from a seed that is the goal's id."""
    history_blocks: NonNegativeInt
    """How many finished blocks of the user with actual minutes the estimates learn from; 0 leaves the prior alone."""
    history_factor: float
    """By how much the user's own history stretches the prior; 1 without history."""
    spread: float
    """The standard deviation of the logarithm of actual over estimated minutes of one block; the prior is .25."""


class PlanGoalResult(Result):
    """The plan as it is stored."""

    goal_id: str
    """The goal."""
    user_id: str
    """Whose goal."""
    status: Literal["planned"] = "planned"
    """The goal and its blocks are stored; anything else is an error."""
    complexity_level: Complexity
    """How big the goal is."""
    intent: Intent
    """What the goal is about, found from its words."""
    planner: Planner
    """Who proposed the blocks."""
    atomic_blocks_count: NonNegativeInt
    """How many blocks the plan has."""
    atomic_blocks: tuple[AtomicBlock, ...]
    """The blocks in the order of their indexes."""
    total_estimated_minutes: NonNegativeInt
    """The sum of the blocks' estimates, done ones included."""
    parts: tuple[GoalPart, ...]
    """The level above the blocks."""
    passes: tuple[ScopingPass, ...]
    """How the decomposition by templates went; empty for a model's proposal."""
    critical_path: CriticalPath
    """The longest chain of blocks."""
    estimates: Estimates
    """How long what is left takes."""
    schedule: PlannedSchedule
    """When it is to be worked on."""
    blocks_removed: NonNegativeInt
    """How many open blocks of an earlier plan this one has replaced."""
    planning_timestamp: Moment
    """When the job started."""


class TrackProgressParams(Params):
    """See how a goal comes along."""

    goal_id: Identifier
    """The goal, whatever its status."""
    user_id: Identifier
    """Whose goal it is."""


class TrackStatus(StrEnum):
    """Whether there was something to track."""

    TRACKED = "tracked"
    """The goal has blocks."""
    INSUFFICIENT_DATA = "insufficient_data"
    """The goal has no block, so nothing is said about its progress."""
    NOT_FOUND = "not_found"
    """The user has no such goal."""


class Accuracy(Model):
    """Estimates against what the finished blocks took; all but the count is null when no block says so."""

    blocks: NonNegativeInt = 0
    """How many finished blocks have actual minutes."""
    estimated_minutes: NonNegativeInt = 0
    """What was estimated for them."""
    actual_minutes: float = 0
    """What they took."""
    ratio: float | None = None
    """Actual over estimated minutes; above 1 took longer."""
    mean_error_percent: float | None = None
    """The mean of |actual − estimated| / estimated, in percent."""


class Velocity(Model):
    """How fast the goal has come along, over the UTC days since it began, today included."""

    days: NonNegativeInt
    """How many days that are."""
    blocks_per_day: float
    """Finished blocks a day."""
    minutes_per_day: float
    """Estimated minutes of finished blocks a day."""


class Risk(StrEnum):
    """How likely the goal is to miss its deadline."""

    LOW = "low"
    """The probability to make it is at least .8."""
    MEDIUM = "medium"
    """It is at least .5."""
    HIGH = "high"
    """It is lower."""
    CRITICAL = "critical"
    """The deadline has passed."""


class Prediction(Model):
    """Whether the goal is reached in time if it goes on at its average pace."""

    elapsed_days: float
    """Days since the goal began."""
    remaining_days: float | None
    """Days until the deadline, negative after it; null without one."""
    days_needed: float | None
    """(100 − p) / (p / elapsed) days for the rest; null at progress 0, which has no pace."""
    expected_completion_at: Moment | None
    """Now plus the days needed; null where these are, when all is done, and beyond the year 9999."""
    probability: float | None
    """To be done by the deadline, 0–1; null without a deadline."""
    risk: Risk | None
    """The probability as a word; null without a deadline."""


class NextBlock(Model):
    """The block to go on with: all that it depends on is done."""

    block_id: str
    """The record's id."""
    block_index: NonNegativeInt
    """Its place in the plan."""
    title: str
    """What it is called."""
    estimated_minutes: int
    """How long it should take."""
    scheduled_start: Moment | None
    """When it is scheduled; null when it is not."""


class Progress(Model):
    """Every figure about a goal that has blocks."""

    progress_percent: float
    """The share of estimated minutes whose blocks are done, in percent."""
    blocks_total: NonNegativeInt
    """How many blocks the goal has."""
    blocks_completed: NonNegativeInt
    """How many of them are done."""
    minutes_total: NonNegativeInt
    """The estimated minutes of all blocks."""
    minutes_done: NonNegativeInt
    """The estimated minutes of the blocks that are done."""
    minutes_left: NonNegativeInt
    """The estimated minutes of the blocks that are open."""
    minutes_spent: float
    """The actual minutes of all blocks that have them, done or not."""
    accuracy: Accuracy
    """How good the estimates were."""
    streak_days: NonNegativeInt
    """UTC days in a row with a finished block, up to today or yesterday."""
    velocity: Velocity
    """How fast the goal has come along."""
    prediction: Prediction
    """Whether it is reached in time."""
    next_block: NextBlock | None
    """The block to go on with; null when none is open or all open ones wait for each other."""
    blocks_today: NonNegativeInt
    """How many blocks the user has finished on this UTC day, of all goals."""
    is_stop_due: bool
    """Whether that is five or more: time to stop for the day."""
    last_activity_at: Moment
    """When a block was last finished, else when the goal began."""
    days_since_activity: float
    """Days since then."""
    is_stalled: bool
    """Whether an active goal with open blocks has stood still for 14 days or more."""


class TrackProgressResult(Result):
    """How a goal comes along."""

    goal_id: str
    """The goal."""
    user_id: str
    """Whose goal."""
    status: TrackStatus
    """Whether there was something to track."""
    goal_status: GoalStatus | None
    """Whether the goal is being worked on; null when there is none."""
    deadline: Moment | None
    """The goal's deadline; null when it has none."""
    progress: Progress | None
    """The figures; null without a goal or blocks."""
    tracking_timestamp: Moment
    """When the job started."""


def _aliases(function: str) -> tuple[str, ...]:
    return (function, f"ai_pal.tasks.ffe_tasks.{function}", f"backend.app.tasks.{function}")


plan_goal = JobType(
    kind="ffe.plan_goal",
    summary="Break a goal down into blocks of 15 to 90 minutes, estimate them and schedule them.",
    params=PlanGoalParams,
    result=PlanGoalResult,
    queue="ffe_planning",
    task_type=TaskType.FFE_PLANNING,
    retry=RetryPolicy(max_retries=3, base_s=60.0),
    aliases=_aliases("plan_ffe_goal"),
)
track_progress = JobType(
    kind="ffe.track_progress",
    summary="See how a goal comes along, and whether it will be reached in time.",
    params=TrackProgressParams,
    result=TrackProgressResult,
    queue="ffe_planning",
    task_type=TaskType.FFE_PLANNING,
    retry=RetryPolicy(max_retries=2, base_s=30.0),
    limits=LIGHT,
    aliases=_aliases("track_ffe_progress"),
)

FAMILY = Family(
    name="ffe",
    summary="Goals broken down into blocks that one sitting can finish.",
    job_types=(plan_goal, track_progress),
)
