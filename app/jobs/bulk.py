"""The contract of ``system.bulk``: one change of many jobs, as a job of its own. No I/O."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.jobs.contract import LONG, JobType, RetryPolicy, TaskType
from app.jobs.fields import Identifier, Integer, Model, Moment, Params, Priority, Result
from app.jobs.status import FINAL, LIVE, Status

MAX_IDS = 1000


class BulkAction(StrEnum):
    """What is done to each of the jobs."""

    CANCEL = "cancel"
    """Cancel it, whether it waits or runs."""
    RETRY = "retry"
    """Submit it again, as a new one."""
    DELETE = "delete"
    """Delete it for good, with its attempts."""
    REPRIORITISE = "reprioritise"
    """Give it another priority, within the limit of its kind."""


APPLICABLE: dict[BulkAction, frozenset[Status]] = {
    BulkAction.CANCEL: LIVE,
    BulkAction.RETRY: frozenset({Status.FAILED, Status.CANCELLED}),
    BulkAction.DELETE: FINAL,
    BulkAction.REPRIORITISE: frozenset({Status.PENDING}),
}


class Selection(Model):
    """Which jobs are meant; conditions combine, what is left out asks for nothing."""

    ids: Annotated[tuple[Identifier, ...], Field(max_length=MAX_IDS)] | None = None
    """Only these."""
    statuses: tuple[Status, ...] | None = None
    """Of one of these statuses; only those that the action applies to are ever meant."""
    was_tried: bool | None = None
    """Of the waiting ones: only those after an attempt, or only those before any."""
    task_type: str | None = None
    """The broad class."""
    kind: str | None = None
    """The kind."""
    family: str | None = None
    """The family of kinds."""
    queue: str | None = None
    """The queue."""
    user_id: str | None = None
    """Whom the job is about."""
    priority: Integer | None = None
    """The priority."""
    created_after: Moment | None = None
    """Accepted at this time or later."""
    created_before: Moment | None = None
    """Accepted before this time; what comes later is never meant."""
    q: str | None = None
    """A piece of the id, the kind, the user or the error message."""
    origin: Literal["people", "cron", "all"] = "people"
    """Who submitted it: a person, the clock, or either."""


class BulkParams(Params):
    """Change many jobs."""

    action: BulkAction
    """What to do."""
    selection: Selection
    """To which jobs."""
    new_priority: Priority | None = None
    """The priority to give; for ``reprioritise`` alone."""

    @model_validator(mode="after")
    def _has_a_priority_if_it_needs_one(self) -> Self:
        if (self.action is BulkAction.REPRIORITISE) != (self.new_priority is not None):
            raise ValueError("new_priority belongs to the action reprioritise, which needs it")
        return self


class BulkResult(Result):
    """What was changed."""

    action: BulkAction
    """What was done."""
    matched: int
    """How many jobs were found."""
    changed: int
    """How many of them it was done to; the others had moved on by themselves."""


bulk = JobType(
    kind="system.bulk",
    summary="Cancel, retry, delete or reprioritise many tasks.",
    params=BulkParams,
    result=BulkResult,
    queue="default",
    task_type=TaskType.SYSTEM,
    priority=8,
    retry=RetryPolicy(max_retries=3, base_s=5.0),
    limits=LONG,
    is_admin_only=True,
)
