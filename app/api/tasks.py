"""The task routes: submit, read, act."""

from collections.abc import Iterable, Iterator

from app.api.endpoint import Access, Call, Endpoint, endpoint
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
from app.api.submissions import (
    AnyParams,
    EnqueueRequest,
    Form,
    acceptance_of,
    enqueue_form,
    order_of,
    submission_form,
)
from app.api.views import find_job, show
from app.errors import Conflict, FieldError, InvalidInput
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.fields import Model, Priority
from app.jobs.status import Status
from app.jobs.validation import validate


class TaskList(Model):
    """One page of tasks."""

    tasks: tuple[Task, ...]
    """The tasks, in the order asked for."""
    total_count: int
    """How many there are of this description, on all pages."""
    limit: int
    """The most tasks on this page."""
    offset: int
    """How many were left out from the start."""
    next_cursor: str | None
    """Where the next page starts; null on the last."""


class TaskCount(Model):
    """How many tasks there are of a description."""

    count: int
    """How many."""
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
    """What to change of a task that waits."""

    priority: Priority
    """1–10; higher runs first."""


def task_endpoints(catalogue: Catalogue) -> Iterator[Endpoint]:
    """Yield every task route; the submit routes follow from the catalogue."""
    yield from (_submit_endpoint(job_type) for job_type in catalogue)
    yield _enqueue_endpoint(catalogue)
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


# --- submit ------------------------------------------------------------------------------------


async def submit(call: Call, document: object, job_type: AnyJobType, form: Form) -> AnsweredTask:
    """Accept one job: once this returns it is committed."""
    order = order_of(document, job_type, form, call.caller)
    (job,) = await call.installation.lifecycle.submit([order])
    return _accepted(call, answered_task_of(fresh_job(job), acceptance_of(job, order)))


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
    count = await call.installation.reader.count(wanted)
    return TaskCount(count=count, status=",".join(query.status) or None, task_type=query.task_type)


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
    job = await find_job(call)
    again = await call.installation.lifecycle.retry(job.id, owner=call.caller.user_id)
    return _accepted(call, answered_task_of(fresh_job(again), f"Task submitted again with priority {again.priority}"))


async def change_task(call: Call, body: TaskChange) -> AnsweredTask:
    """Give a waiting task another priority."""
    job = await find_job(call)
    job_type = call.installation.catalogue.get(job.kind)
    priority = min(body.priority, job_type.max_priority if job_type else body.priority)
    changed = await call.installation.lifecycle.reprioritise(job.id, priority=priority)
    lowered = f" (lowered from {body.priority})" if priority < body.priority else ""
    message = f"Task priority set to {priority}{lowered}"
    return answered_task_of(changed, message, for_admin=call.caller.is_admin)


def _submit_endpoint(job_type: AnyJobType) -> Endpoint:
    form = submission_form(job_type)

    async def submit_type(call: Call, document: object) -> AnsweredTask:
        return await submit(call, document, job_type, form)

    return endpoint(
        "POST",
        f"/tasks/{job_type.route}",
        submit_type,
        status=202,
        access=Access.ADMIN if job_type.is_admin_only else Access.CALLER,
        body=form.model,
        summary=job_type.summary,
        operation_id=f"submit_{job_type.kind.replace('.', '_')}",
    )


def _enqueue_endpoint(catalogue: Catalogue) -> Endpoint:
    forms = {job_type.kind: enqueue_form(job_type) for job_type in catalogue}

    async def enqueue_task(call: Call, document: object) -> AnsweredTask:
        job_type = catalogue.find(_name_in(document))
        return await submit(call, document, job_type, forms[job_type.kind])

    return endpoint(
        "POST",
        "/tasks/enqueue",
        enqueue_task,
        status=201,
        body=EnqueueRequest[AnyParams],
        summary="Submit a task of any kind, by its name or an alias.",
    )


def _name_in(document: object) -> str:
    """Return the name that a body asks for; raises InvalidInput with everything else that is wrong, too."""
    name = document.get("task_name") if isinstance(document, dict) else None
    if isinstance(name, str) and name:
        return name
    validate(EnqueueRequest[AnyParams], document)
    raise InvalidInput([FieldError(pointer="/task_name", code="missing", detail="This field is required.")])


def _accepted(call: Call, task: AnsweredTask) -> AnsweredTask:
    call.headers["Location"] = path_of(task.task_id)
    return task


async def _page(call: Call, wanted: Filters, paging: Paging, limit: int, statuses: Iterable[str] = ()) -> TaskList:
    installation = call.installation
    described = filter_of(wanted, catalogue=installation.catalogue, caller=call.caller, statuses=statuses)
    page = await installation.reader.page(
        described, sort=sort_of(paging), limit=limit, offset=paging.offset, cursor=paging.cursor
    )
    return TaskList(
        tasks=await show(call, page.jobs),
        total_count=await installation.reader.count(described),
        limit=limit,
        offset=paging.offset,
        next_cursor=page.next_cursor,
    )
