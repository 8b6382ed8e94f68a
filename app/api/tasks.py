"""The task routes that read and act; those that submit are in ``intake``."""

from collections.abc import Iterable, Iterator
from typing import Self

from pydantic import ConfigDict, model_validator

from app.api.endpoint import Call, Endpoint, endpoint, room_for
from app.api.filters import (
    Filters,
    GlanceQuery,
    Paging,
    ShortTaskQuery,
    StatusFilters,
    TaskQuery,
    filter_of,
    sort_of,
)
from app.api.schemas import (
    AnsweredTask,
    Json,
    Task,
    TaskAttempt,
    TaskError,
    answered_task_of,
    attempt_of,
    error_of,
    fresh_job,
    path_of,
)
from app.api.submissions import check_eta
from app.api.views import find_job, show
from app.clock import iso
from app.errors import Conflict
from app.history.reader import COUNTED
from app.jobs.fields import Model, Moment, Priority
from app.jobs.status import Status


class TaskList(Model):
    """One page of tasks."""

    tasks: tuple[Task, ...]
    """The tasks, in the order asked for."""
    total_count: int
    """How many there are of this description, on all pages; 10,000 stands for any number above."""
    total_is_exact: bool
    """Whether they were all counted; false where there are more than 10,000."""
    limit: int
    """The most tasks on this page."""
    offset: int
    """How many were left out from the start."""
    next_cursor: str | None
    """Where the next page starts; null on the last."""


class TaskCount(Model):
    """How many tasks there are of a description."""

    count: int
    """How many; 10,000 stands for any number above."""
    is_exact: bool
    """Whether they were all counted; false where there are more than 10,000."""
    status: str | None
    """The status that was asked for."""
    task_type: str | None
    """The task type that was asked for."""


class TaskAttempts(Model):
    """Every attempt of a task."""

    task_id: str
    """The task."""
    attempts: tuple[TaskAttempt, ...]
    """In the order of their starts."""
    total: int
    """How many."""


class TaskResult(Model):
    """What a task returned, alone."""

    task_id: str
    """The task."""
    status: Status
    """Where it is in its life."""
    ready: bool
    """Whether it has ended."""
    successful: bool
    """Whether it has completed."""
    result: Json
    """What it returned, once completed."""
    error: TaskError | None
    """Why it failed."""


class Cancellation(Model):
    """A task was cancelled."""

    task_id: str
    """The task."""
    success: bool
    """Always true: what cannot be cancelled is answered with a problem."""
    status: Status
    """The task's status now."""
    message: str
    """What was done, in words."""


class CancelQuery(Model):
    """How far a cancel may go."""

    terminate: bool = True
    """Whether a task that runs already is stopped; otherwise it is left alone, and the answer is a 409."""


class TaskChange(Model):
    """What to change of a task that waits; at least one of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"priority": 9, "eta": "2026-12-01T06:00:00Z"}]})

    priority: Priority | None = None
    """1–10; higher runs first."""
    eta: Moment | None = None
    """Start no earlier than this, within ten years; a time in the past is now."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.priority is None and self.eta is None:
            raise ValueError("give priority, eta or both")
        return self


def task_endpoints() -> Iterator[Endpoint]:
    """Yield the routes that read and change tasks."""
    yield endpoint("GET", "/tasks", list_tasks)
    yield endpoint("GET", "/tasks/list", list_few_tasks)
    yield endpoint("GET", "/tasks/pending", list_pending_tasks)
    yield endpoint("GET", "/tasks/failed", list_failed_tasks)
    yield endpoint("GET", "/tasks/count/all", count_tasks)
    yield endpoint("GET", "/tasks/{task_id}", get_task, aliases=("/tasks/status/{task_id}",))
    yield endpoint("GET", "/tasks/{task_id}/attempts", list_attempts)
    yield endpoint("GET", "/tasks/{task_id}/result", get_result)
    yield endpoint("DELETE", "/tasks/{task_id}", cancel_task)
    yield endpoint("POST", "/tasks/{task_id}/cancel", cancel_task, operation_id="cancel_task_by_post")
    yield endpoint("POST", "/tasks/{task_id}/retry", retry_task, status=202)
    yield endpoint("PATCH", "/tasks/{task_id}", change_task)


async def list_tasks(call: Call, query: TaskQuery) -> TaskList:
    """List tasks, newest first."""
    return await _page(call, query, query, query.limit)


async def list_few_tasks(call: Call, query: ShortTaskQuery) -> TaskList:
    """List tasks, newest first, 20 at a time."""
    return await _page(call, query, query, query.limit)


async def list_pending_tasks(call: Call, query: GlanceQuery) -> TaskList:
    """List tasks that wait."""
    return await _page(call, query, query, query.limit, [Status.PENDING])


async def list_failed_tasks(call: Call, query: GlanceQuery) -> TaskList:
    """List tasks that failed."""
    return await _page(call, query, query, query.limit, [Status.FAILED])


async def count_tasks(call: Call, query: StatusFilters) -> TaskCount:
    """Count tasks."""
    wanted = filter_of(query, catalogue=call.installation.catalogue, caller=call.caller)
    count = await call.installation.reader.count(wanted, limit=COUNTED + 1)
    return TaskCount(
        count=min(count, COUNTED),
        is_exact=count <= COUNTED,
        status=",".join(query.status) or None,
        task_type=query.task_type,
    )


async def get_task(call: Call) -> Task:
    """Show one task."""
    (task,) = await show(call, [await find_job(call)])
    return task


async def list_attempts(call: Call) -> TaskAttempts:
    """Show every attempt of a task."""
    job = await find_job(call)
    attempts = await call.installation.reader.attempts(job)
    shown = tuple(attempt_of(attempt, for_admin=call.caller.is_admin) for attempt in attempts)
    return TaskAttempts(task_id=job.id, attempts=shown, total=len(shown))


async def get_result(call: Call) -> TaskResult:
    """Show what a task returned."""
    job = await find_job(call)
    return TaskResult(
        task_id=job.id,
        status=job.status,
        ready=job.status.is_final,
        successful=job.status is Status.COMPLETED,
        result=job.result,
        error=error_of(job.error),
    )


async def cancel_task(call: Call, query: CancelQuery) -> Cancellation:
    """Cancel a task that waits or runs."""
    job = await find_job(call)
    if job.status is Status.RUNNING and not query.terminate:
        raise Conflict("The task is running; only terminate=true stops it.")
    ended = await call.installation.lifecycle.cancel(job.id, include_running=query.terminate)
    return Cancellation(task_id=ended.id, success=True, status=ended.status, message="Task cancelled successfully")


async def retry_task(call: Call) -> AnsweredTask:
    """Run a failed or cancelled task again, as a new one."""
    return await replay(call, (await find_job(call)).id)


async def change_task(call: Call, body: TaskChange) -> AnsweredTask:
    """Give a waiting task another priority, another time, or both."""
    job = await find_job(call)
    check_eta(body.eta)
    job_type = call.installation.catalogue.get(job.kind)
    limit = job_type.max_priority if job_type else 10
    priority = None if body.priority is None else min(body.priority, limit)
    changed = await call.installation.lifecycle.reprioritise(job.id, priority=priority, eta=body.eta)
    said = []
    if priority is not None:
        lowered = f" (lowered from {body.priority})" if priority != body.priority else ""
        said.append(f"priority set to {priority}{lowered}")
    if body.eta is not None:
        said.append(f"due at {iso(changed.due_at)}")
    return answered_task_of(changed, f"Task {', '.join(said)}", for_admin=call.caller.is_admin)


async def replay(call: Call, task_id: str, *, is_dead_letter: bool = False) -> AnsweredTask:
    """Submit a task again as a new one of the caller's; raise Conflict if it has neither failed nor been cancelled.

    A dead letter is replayed by one at a time: Conflict for the others.
    """
    async with room_for(call, 1):
        lifecycle = call.installation.lifecycle
        again = await lifecycle.retry(task_id, owner=call.caller.user_id, is_replay=is_dead_letter)
    call.headers["Location"] = path_of(again.id)
    return answered_task_of(fresh_job(again), f"Task submitted again with priority {again.priority}")


async def _page(call: Call, wanted: Filters, paging: Paging, limit: int, statuses: Iterable[str] = ()) -> TaskList:
    installation = call.installation
    described = filter_of(wanted, catalogue=installation.catalogue, caller=call.caller, statuses=statuses)
    page = await installation.reader.page(
        described, sort=sort_of(paging), limit=limit, offset=paging.offset, cursor=paging.cursor
    )
    count = await installation.reader.count(described, limit=COUNTED + 1)
    return TaskList(
        tasks=await show(call, page.jobs),
        total_count=min(count, COUNTED),
        total_is_exact=count <= COUNTED,
        limit=limit,
        offset=paging.offset,
        next_cursor=page.next_cursor,
    )
