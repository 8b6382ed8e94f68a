"""Adoption: a job that a plain arq client put into one of our queues gets a row like any other.

Used by ``app.lifecycle`` when a claim finds no row. What cannot run still gets its row, and ends failed
there, so that whoever sent it can see why. Only an id that had its job before gets none: a row is one job's.
"""

from datetime import datetime, timedelta

from app.clock import iso, to_ms
from app.errors import InvalidInput, UnknownTask
from app.history.rows import Failure, Job, NewJob
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.validation import validate
from app.queue import keys
from app.queue.wire import Body

OWNER = "arq"  # such a client has no identity
_SKEW = timedelta(seconds=1)  # by which the clock of such a client may be ahead


def adopt(
    catalogue: Catalogue, job_id: str, queue_key: str, body: Body, now: datetime
) -> tuple[NewJob, Failure | None]:
    """Return the row for a stock client's job, and why it cannot run, if it cannot."""
    queue, _, priority = queue_key.removeprefix(keys.QUEUE).rpartition(":")
    job_type, failure = _check(catalogue, body)
    row = NewJob(
        id=job_id,
        kind=job_type.kind if job_type else body.kind,
        task_type=job_type.task_type.value if job_type else "unknown",
        queue=queue,
        user_id=str(body.kwargs["user_id"]) if failure is None and body.kwargs.get("user_id") else None,
        submitted_by=OWNER,
        priority=int(priority),
        params=body.kwargs,
        max_retries=job_type.retry.max_retries if job_type else 0,
        created_at=now,
        due_at=now,
    )
    return row, failure


def reuse(job: Job, body: Body) -> Failure | None:
    """Say that a job cannot run because its id was that of one that has ended; None for that one's own body."""
    ended_at = job.completed_at or job.created_at
    if body.enqueued_ms <= to_ms(ended_at + _SKEW):
        return None
    message = f"The id {job.id} was used before, by a job that ended at {iso(ended_at)}. An id is for one job alone."
    return Failure(code="id_used_before", type="IdUsedBefore", message=message, is_retryable=False)


def _check(catalogue: Catalogue, body: Body) -> tuple[AnyJobType | None, Failure | None]:
    try:
        job_type = catalogue.find(body.kind)
    except UnknownTask as error:
        return None, Failure(code=error.code, type="UnknownTask", message=error.message, is_retryable=False)
    if body.args:
        message = f"{job_type.kind} takes named parameters only, not {len(body.args)} positional ones."
        return job_type, Failure(code="validation_error", type="InvalidInput", message=message, is_retryable=False)
    try:
        validate(job_type.params, body.kwargs)
    except InvalidInput as error:
        wrong = "; ".join(f"{one.pointer}: {one.detail}" for one in error.errors)
        return job_type, Failure(code=error.code, type="InvalidInput", message=wrong, is_retryable=False)
    return job_type, None
