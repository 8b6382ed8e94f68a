"""What Redis is told about a job: offers, events, tallies, results in arq's form. Pure translations.

Used by ``app.lifecycle`` alone.
"""

from datetime import datetime

import orjson

from app.clock import to_ms, utc_now
from app.history.rows import Failure, Job, NewJob
from app.history.writer import Settlement, Started
from app.jobs.status import Status
from app.live.events import Event
from app.live.totals import Tally
from app.queue import keys
from app.queue.client import Offer
from app.queue.wire import CANCELLED, body_of, result_of


def offer_of(job: NewJob) -> Offer:
    """Offer a job that was just accepted."""
    due_ms = 0 if job.scheduled_for is None else to_ms(job.due_at)
    return _offer(job, due_ms, "")


def live_offer_of(job: Job) -> Offer:
    """Offer a job again as its row stands: waiting at its due time, or running under its claim."""
    return _offer(job, to_ms(job.due_at), (job.claim or "") if job.status is Status.RUNNING else "")


def event_of(
    job: NewJob | Started,
    name: str,
    status: Status,
    *,
    attempt: int = 0,
    progress: float = 0.0,
    message: str | None = None,
    stage: str | None = None,
    error: str | None = None,
) -> Event:
    """Tell of a change of a job."""
    return Event(
        type=name,
        job_id=job.id,
        kind=job.kind,
        queue=job.queue,
        owner=job.submitted_by,
        user_id=job.user_id,
        status=status,
        attempt=attempt,
        progress=progress,
        message=message,
        stage=stage,
        error=error,
    )


def submitted_event(job: NewJob, at: datetime) -> bytes:
    """Tell that a job was accepted, as it stands in the stream."""
    return _written(job, "submitted", Status.PENDING, at, attempt=0)


def started_event(job: Started, at: datetime) -> bytes:
    """Tell that an attempt has begun, as it stands in the stream."""
    return _written(job, "started", Status.RUNNING, at, attempt=job.attempts)


def settled_event(job: Started, settlement: Settlement, at: datetime) -> bytes:
    """Tell how an attempt ended, as it stands in the stream."""
    verb = "retrying" if settlement.status is Status.PENDING else settlement.status.value
    return _written(job, verb, settlement.status, at, attempt=job.attempts, ending=settlement)


def _written(
    job: NewJob | Started,
    verb: str,
    status: Status,
    at: datetime,
    *,
    attempt: int,
    ending: Settlement | None = None,
) -> bytes:
    """Write what :func:`app.live.events.dump_event` would, for every job that passes: the object costs more."""
    return orjson.dumps(
        {
            "type": f"task.{verb}",
            "job_id": job.id,
            "kind": job.kind,
            "queue": job.queue,
            "owner": job.submitted_by,
            "user_id": job.user_id,
            "status": status,
            "attempt": attempt,
            "progress": ending.progress if ending else 0.0,
            "message": ending.progress_message if ending else None,
            "stage": ending.stage if ending else None,
            "error": ending.error.message if ending and ending.error else None,
            "at": at,
        }
    )


def tally_of(
    job: NewJob | Started, status: Status, started_at: datetime | None, ended_at: datetime | None = None
) -> Tally:
    """Count an end; an attempt that will be tried again counts as ``retried``."""
    duration_s = None if started_at is None else max(0.0, ((ended_at or utc_now()) - started_at).total_seconds())
    label = "retried" if status is Status.PENDING else status.value
    return Tally(kind=job.kind, queue=job.queue, status=label, duration_s=duration_s)


def tally_of_ending(job: Started, settlement: Settlement) -> Tally:
    """Count the end of an attempt."""
    return tally_of(job, settlement.status, job.started_at, settlement.ended_at)


def result_of_row(job: Job) -> bytes:
    """Write the result of an ended job for arq's client, from its row."""
    started_at, ended_at = job.started_at or job.created_at, job.completed_at or job.created_at
    result = orjson.dumps(job.result).decode()
    return _arq_result(job, (started_at, ended_at), job.status, result, job.error)


def result_of_settlement(job: Started, settlement: Settlement) -> bytes:
    """Write the same from the settlement, before anybody reads the row."""
    times = (job.started_at, settlement.ended_at)
    return _arq_result(job, times, settlement.status, settlement.result, settlement.error)


def _offer(job: NewJob, due_ms: int, token: str) -> Offer:
    body = body_of(job.kind, job.params, to_ms(job.created_at))
    return Offer(id=job.id, queue=job.queue, priority=job.priority, body=body, due_ms=due_ms, token=token)


def _arq_result(
    job: Job | Started, times: tuple[datetime, datetime], status: Status, result: str | None, failure: Failure | None
) -> bytes:
    error = {"code": failure.code, "message": failure.message} if failure else None
    if status is Status.CANCELLED:
        error = {"code": CANCELLED, "message": "The job was cancelled."}
    return result_of(
        job_id=job.id,
        kind=job.kind,
        params=job.params,
        attempt=job.attempts,
        queue_key=keys.queue(job.queue, job.priority),
        enqueued_ms=to_ms(job.created_at),
        started_ms=to_ms(times[0]),
        ended_ms=to_ms(times[1]),
        result=result,
        error=error,
    )
