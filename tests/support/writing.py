"""The steps of a row under a writer, without a queue: started, ended; and what the rows say then."""

from datetime import timedelta
from typing import Any

from app.clock import utc_now
from app.history.reader import Reader
from app.history.rows import Job, NewJob
from app.history.writer import Started, StartRequest, Writer
from app.jobs.status import Status
from tests.support.house import WORKER, ending, new_job, whole_ms

NOW = whole_ms(utc_now())
LATER = NOW + timedelta(minutes=5)

SURROGATE = "\ud800"  # half a character, which no database stores


async def row(reader: Reader, job: NewJob | Started) -> Job:
    """Return a job's row, which must be there."""
    found = await reader.get(job.id)
    assert found is not None
    return found


async def outcomes(reader: Reader, job: NewJob | Started) -> list[tuple[int, str]]:
    """Return the number and the outcome of each attempt of a job."""
    return [(attempt.attempt, attempt.outcome) for attempt in await reader.attempts(await row(reader, job))]


async def start(writer: Writer, *jobs: NewJob, claim: str = "mine", dead: str | None = None) -> list[Started]:
    """Start jobs under one claim; return those that started."""
    return await writer.start(
        [StartRequest(id=job.id, claim=claim, dead=dead) for job in jobs], worker_id=WORKER, now=NOW
    )


async def start_one(writer: Writer, claim: str = "mine", **changes: Any) -> Started:
    """Accept a job with these changes and start it."""
    job = new_job(**changes)
    await writer.accept([job])
    (started,) = await start(writer, job, claim=claim)
    return started


async def end(writer: Writer, status: Status) -> NewJob:
    """Bring a job to ``status``."""
    job = new_job()
    await writer.accept([job])
    if status is Status.CANCELLED:
        await writer.cancel(job.id, include_running=True, now=NOW)
    elif status is not Status.PENDING:
        (started,) = await start(writer, job, claim="a-former-claim")
        if status is not Status.RUNNING:
            await writer.settle(ending(started, status))
    return job
