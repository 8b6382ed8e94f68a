"""The task as the HTTP contract shows it. The only place where a job becomes a task; pure."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import JsonValue, SkipValidation

from app.clock import utc_now
from app.history.rows import Attempt, Failure, Job, NewJob
from app.jobs.fields import Model
from app.jobs.status import LIVE, Status
from app.live.progress import Progress

Json = Annotated[JsonValue, SkipValidation]  # comes from our own tables, where only JSON is
JsonObject = Annotated[dict[str, Any], SkipValidation]

TASKS_PATH = "/api/tasks"

_RETRYABLE = frozenset({Status.FAILED, Status.CANCELLED})


class State(StrEnum):
    """The classic broker's word for a status, for clients that know those."""

    PENDING = "PENDING"
    """Waits, and was not tried yet."""
    RETRY = "RETRY"
    """Waits after an attempt."""
    STARTED = "STARTED"
    """Runs, and has reported no progress yet."""
    PROGRESS = "PROGRESS"
    """Runs, and has reported progress."""
    SUCCESS = "SUCCESS"
    """Completed."""
    FAILURE = "FAILURE"
    """Failed."""
    REVOKED = "REVOKED"
    """Cancelled."""


class TaskError(Model):
    """Why a task, or one attempt of it, failed."""

    code: str
    """What went wrong, stable and machine-readable."""
    type: str
    """The name of the exception."""
    message: str
    """What went wrong, in words."""
    retryable: bool
    """Whether trying again may help."""


class TaskLinks(Model):
    """Where to go from here; null where it makes no sense any more."""

    self: str
    """The task itself."""
    events: str
    """Its events, as a websocket."""
    cancel: str | None
    """POST here to cancel it, while it has not ended."""
    retry: str | None
    """POST here to run it again as a new task, once it has failed or was cancelled."""


class Task(Model):
    """One accepted piece of work."""

    task_id: str
    """Its id, a UUIDv7."""
    task_name: str
    """Its kind: family and name, joined by a dot."""
    task_type: str
    """The broad class that its kind belongs to."""
    queue: str
    """The queue it waits in."""
    user_id: str | None
    """Whom it is about; null is all users, or nobody."""
    status: Status
    """Where it is in its life."""
    state: State
    """The same in a classic broker's words."""
    priority: int
    """1–10; higher runs first."""
    params: JsonObject
    """What it was submitted with, defaults filled in."""
    progress: float
    """How far it is, 0–100."""
    progress_message: str | None
    """What it is doing, in words."""
    stage: str | None
    """What it is doing, as a stable word."""
    result: Json
    """What it returned, once completed."""
    error: TaskError | None
    """Why its last attempt failed."""
    error_message: str | None
    """The same in words alone."""
    error_traceback: str | None
    """Where in the code it failed; for administrators only."""
    attempts: int
    """How often it was started."""
    failures: int
    """How many attempts failed of themselves."""
    interruptions: int
    """How many attempts were lost with their worker."""
    retry_count: int
    """How many failed attempts were tried again."""
    max_retries: int
    """How many failed attempts may be tried again, 0–10."""
    created_at: datetime
    """When it was accepted."""
    scheduled_for: datetime | None
    """The time it was asked to wait for."""
    started_at: datetime | None
    """When its latest attempt started."""
    completed_at: datetime | None
    """When it ended, in whichever way."""
    next_attempt_at: datetime | None
    """When it is tried again, while it waits for that."""
    duration_seconds: float | None
    """How long its latest attempt has run, or ran until the task ended; null while it waits."""
    ready: bool
    """Whether it has ended."""
    successful: bool
    """Whether it has completed."""
    worker_id: str | None
    """The worker of its latest attempt."""
    workflow_id: str | None = None
    """The workflow it belongs to; null when it stands alone."""
    retried_from: str | None
    """The task that this one runs again."""
    unique_key: str | None
    """The key that keeps a second such task out while this one lives; null without one."""
    links: TaskLinks
    """Where to go from here."""


class AnsweredTask(Task):
    """A task, and what was done with it."""

    message: str
    """What was done, in words."""


class TaskAttempt(Model):
    """One start of a task."""

    attempt: int
    """Counted from 1."""
    outcome: str
    """running, completed, failed, cancelled, interrupted or released."""
    worker_id: str | None
    """The worker that ran it."""
    started_at: datetime | None
    """When it started."""
    ended_at: datetime | None
    """When it ended; null while it runs."""
    duration_seconds: float | None
    """How long it ran; null while it runs."""
    error: TaskError | None
    """Why it failed."""
    error_traceback: str | None
    """Where in the code it failed; for administrators only."""


_FRESH: dict[str, Any] = dict.fromkeys(AnsweredTask.model_fields) | {
    "status": Status.PENDING.value,
    "state": State.PENDING.value,
    "progress": 0.0,
    "attempts": 0,
    "failures": 0,
    "interruptions": 0,
    "retry_count": 0,
    "ready": False,
    "successful": False,
}


def task_of(job: Job, *, progress: Progress | None = None, for_admin: bool = False) -> Task:
    """Show a job; ``progress`` is what its running attempt reported last."""
    return Task(**_fields(job, progress, for_admin))


def answered_task_of(job: Job, message: str, *, for_admin: bool = False) -> AnsweredTask:
    """Show a job together with what was done with it."""
    return AnsweredTask(**_fields(job, None, for_admin), message=message)


def fresh_job(accepted: NewJob) -> Job:
    """Return the row of a job that was accepted just now, without reading it."""
    values: dict[str, Any] = {name: getattr(accepted, name) for name in NewJob.__dataclass_fields__}
    values |= dict.fromkeys(Job.__dataclass_fields__.keys() - values.keys())
    values |= dict.fromkeys(("attempts", "failures", "interruptions", "releases"), 0)
    return Job(**(values | {"status": Status.PENDING, "progress": 0.0}))


def acceptance_json(accepted: NewJob, message: str) -> bytes:
    """Write the answer to a submit: what :func:`answered_task_of` says of :func:`fresh_job`, byte for byte.

    A submit's own work takes less time than those two models did; a test holds them equal.
    """
    path = path_of(accepted.id)
    shown = _FRESH | {
        "task_id": accepted.id,
        "task_name": accepted.kind,
        "task_type": accepted.task_type,
        "queue": accepted.queue,
        "user_id": accepted.user_id,
        "priority": accepted.priority,
        "params": accepted.params,
        "max_retries": accepted.max_retries,
        "created_at": accepted.created_at,
        "scheduled_for": accepted.scheduled_for,
        "retried_from": accepted.retried_from,
        "unique_key": accepted.unique_key,
        "links": {"self": path, "events": f"{path}/events", "cancel": f"{path}/cancel", "retry": None},
        "message": message,
    }
    return orjson.dumps(shown, option=orjson.OPT_UTC_Z)


def attempt_of(attempt: Attempt, *, for_admin: bool = False) -> TaskAttempt:
    """Show one attempt."""
    return TaskAttempt(
        attempt=attempt.attempt,
        outcome=attempt.outcome,
        worker_id=attempt.worker_id,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        duration_seconds=_between(attempt.started_at, attempt.ended_at),
        error=error_of(attempt.error),
        error_traceback=attempt.error.traceback if attempt.error and for_admin else None,
    )


def error_of(failure: Failure | None) -> TaskError | None:
    """Show why something failed."""
    if failure is None:
        return None
    return TaskError(code=failure.code, type=failure.type, message=failure.message, retryable=failure.is_retryable)


def state_of(status: Status, *, attempts: int, progress: float) -> State:
    """Translate a status into a classic broker's word."""
    match status:
        case Status.PENDING:
            return State.RETRY if attempts else State.PENDING
        case Status.RUNNING:
            return State.PROGRESS if progress > 0 else State.STARTED
        case Status.COMPLETED:
            return State.SUCCESS
        case Status.FAILED:
            return State.FAILURE
        case Status.CANCELLED:
            return State.REVOKED


def path_of(task_id: str) -> str:
    """Return where a task is found."""
    return f"{TASKS_PATH}/{task_id}"


def _fields(job: Job, progress: Progress | None, for_admin: bool) -> dict[str, Any]:
    if job.status is not Status.RUNNING or (progress and progress.attempt != job.attempts):
        progress = None  # of an attempt that is over
    percent = 100.0 if job.status is Status.COMPLETED else progress.percent if progress else job.progress
    return {
        "task_id": job.id,
        "task_name": job.kind,
        "task_type": job.task_type,
        "queue": job.queue,
        "user_id": job.user_id,
        "status": job.status,
        "state": state_of(job.status, attempts=job.attempts, progress=percent),
        "priority": job.priority,
        "params": job.params,
        "progress": percent,
        "progress_message": progress.message if progress else job.progress_message,
        "stage": progress.stage if progress else job.stage,
        "result": job.result,
        "worker_id": job.worker_id,
        "retried_from": job.retried_from,
        "unique_key": job.unique_key,
        "links": _links(job),
        **_error_fields(job, for_admin),
        **_count_fields(job),
        **_time_fields(job),
    }


def _error_fields(job: Job, for_admin: bool) -> dict[str, Any]:
    return {
        "error": error_of(job.error),
        "error_message": job.error.message if job.error else None,
        "error_traceback": job.error.traceback if job.error and for_admin else None,
        "ready": job.status.is_final,
        "successful": job.status is Status.COMPLETED,
    }


def _count_fields(job: Job) -> dict[str, Any]:
    was_last = job.status is Status.FAILED and job.failures > 0
    return {
        "attempts": job.attempts,
        "failures": job.failures,
        "interruptions": job.interruptions,
        "retry_count": job.failures - was_last,
        "max_retries": job.max_retries,
    }


def _time_fields(job: Job) -> dict[str, Any]:
    is_waiting = job.status is Status.PENDING
    return {
        "created_at": job.created_at,
        "scheduled_for": job.scheduled_for,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "next_attempt_at": job.due_at if is_waiting and job.attempts else None,
        "duration_seconds": None if is_waiting else _between(job.started_at, job.completed_at or utc_now()),
    }


def _links(job: Job) -> TaskLinks:
    path = path_of(job.id)
    return TaskLinks(
        self=path,
        events=f"{path}/events",
        cancel=f"{path}/cancel" if job.status in LIVE else None,
        retry=f"{path}/retry" if job.status in _RETRYABLE else None,
    )


def _between(started_at: datetime | None, ended_at: datetime | None) -> float | None:
    if started_at is None or ended_at is None:
        return None
    return max(0.0, (ended_at - started_at).total_seconds())
