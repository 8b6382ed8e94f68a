"""How a plan of the FFE family came about: who proposed it, and how its schedule was found. Pure data."""

from enum import StrEnum

from pydantic import NonNegativeFloat, NonNegativeInt

from app.jobs.fields import Model, Moment


class PlanSource(StrEnum):
    """Who proposed a decomposition."""

    TEMPLATE = "template"
    """The planner's own templates."""
    MODEL = "model"
    """The service at ``PLANNER_URL``; the proposal has passed the same validator."""


class Planner(Model):
    """Who proposed the blocks."""

    source: PlanSource
    """Whose proposal the plan is."""
    model: str | None
    """The model that was asked; null when none was."""
    requests: NonNegativeInt
    """How often it was asked, retries included."""
    fallback_reason: str | None
    """Why the templates had to do although a model was asked; null otherwise."""


class SearchVerdict(StrEnum):
    """What the search for a better order of work has shown."""

    OPTIMAL = "optimal"
    """No order ends earlier than the schedule."""
    FEASIBLE = "feasible"
    """Time was up; an earlier end may exist, though none before the bound."""
    INFEASIBLE = "infeasible"
    """No order brings all open blocks in before the deadline."""
    UNKNOWN = "unknown"
    """Time was up before anything was shown."""
    NOT_RUN = "not_run"
    """There was no search, or it failed; the rule of thumb's order stands."""


class ScheduleSearch(Model):
    """What CP-SAT found: the earliest end of all open blocks in working windows, each after what it depends on."""

    verdict: SearchVerdict
    """How it ended."""
    reason: str | None
    """Why it was not run or failed; null otherwise."""
    is_improved: bool
    """Whether its order took the place of the rule of thumb's, by ending earlier or bringing more blocks in."""
    bound_at: Moment | None
    """No order ends before this; null when nothing was proven."""
    gap_percent: NonNegativeFloat | None
    """How far the schedule's end lies behind the bound, in percent of the time from its beginning; null without one."""


class PlannedSchedule(Model):
    """When the open blocks are to be worked on: Monday to Friday 9–12 and 13–17 UTC, at most five a day."""

    first_start: Moment | None
    """When the first open block begins; null when none is scheduled."""
    last_end: Moment | None
    """When the last open block ends; null when none is scheduled."""
    p80_end: Moment | None
    """When it ends if all take longer in proportion up to the p80 estimate; null when they do not all fit then."""
    fits_deadline: bool | None
    """Whether every open block ends before the goal's deadline; null when it has none."""
    unscheduled_blocks: NonNegativeInt
    """How many open blocks found no place before the deadline."""
    search: ScheduleSearch
    """How the order of the blocks was improved."""
