"""Typed rows: what the tables hold, as the rest of the service sees it."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from app.jobs.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job about to be accepted. Times are aware UTC."""

    id: str
    kind: str
    task_type: str
    queue: str
    user_id: str | None
    submitted_by: str
    priority: int
    params: dict[str, Any]
    max_retries: int
    created_at: datetime
    due_at: datetime
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None
    retried_from: str | None = None
    schedule: str | None = None
    tick_at: datetime | None = None
    unique_key: str | None = None
    webhook_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt or a job failed."""

    code: str  # stable and machine-readable: timeout, worker_lost, validation_error, unknown …
    type: str  # the exception's class name
    message: str
    traceback: str | None = None
    is_retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(NewJob):
    """One row of ``background_tasks``."""

    status: Status
    claim: str | None
    worker_id: str | None
    attempts: int
    failures: int
    interruptions: int
    releases: int
    started_at: datetime | None
    completed_at: datetime | None
    progress: float
    progress_message: str | None
    stage: str | None
    result: Any
    error: Failure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a job. ``outcome`` is failed, interrupted, released, completed, cancelled or running."""

    attempt: int
    outcome: str
    worker_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: Failure | None


_ERROR_COLUMNS = {"error_code", "error_type", "error_message", "error_traceback", "is_retryable"}
_PLAIN = tuple(field.name for field in fields(Job) if field.name not in {"status", "error"})


def insertable(job: NewJob) -> dict[str, Any]:
    """Return the columns of a job that is about to be accepted, by their keys."""
    return {name: getattr(job, name) for name in NewJob.__dataclass_fields__} | {"status": Status.PENDING}


def job_from(row: RowMapping) -> Job:
    """Build a :class:`Job` from a row that was selected by the columns' keys."""
    plain = {name: row[name] for name in _PLAIN}
    return Job(**plain, status=Status(row["status"]), error=failure_from(row))


def failure_from(row: RowMapping) -> Failure | None:
    """Read the error columns of a job or an attempt; None when it has none."""
    if row["error_code"] is None:
        return None
    return Failure(
        code=row["error_code"],
        type=row["error_type"] or "",
        message=row["error_message"] or "",
        traceback=row["error_traceback"],
        is_retryable=bool(row.get("is_retryable")),
    )
