"""Jobs as a caller may see them: rows from the history, with the progress that only Redis has."""

import asyncio
from collections.abc import Iterable, Sequence

from app.api.auth import Caller
from app.api.endpoint import Call
from app.api.schemas import Task, task_of
from app.errors import NotFound
from app.history.reader import Reader
from app.history.rows import Job
from app.jobs.status import Status
from app.live.progress import Progress, read_progress
from app.queue.connect import OUTAGES, Redis

_PROGRESS_S = 0.5  # progress is worth this much waiting; without it the row's own is shown
_MAX_ID = 255


async def find_job(call: Call) -> Job:
    """Return the job that the path names; raises NotFound if there is none that the caller may see."""
    job = await find_visible(call.installation.reader, call.request.match_info["task_id"], call.caller)
    if job is None:
        raise NotFound("There is no such task: not found.")
    if job.submitted_by != call.caller.user_id:
        call.foreign.append(job.submitted_by)
    return job


async def find_visible(reader: Reader, job_id: str, caller: Caller) -> Job | None:
    """Return a job, or None if there is none that the caller may see."""
    if len(job_id) > _MAX_ID or not job_id.isprintable():  # no database holds such an id, and some refuse to look
        return None
    job = await reader.get(job_id)
    return job if job is not None and caller.may_see(job.submitted_by) else None


async def show(call: Call, jobs: Sequence[Job]) -> tuple[Task, ...]:
    """Show jobs to the caller, each running one with its latest progress."""
    progress = await latest_progress(call.installation.redis, jobs)
    return tuple(task_of(job, progress=progress.get(job.id), for_admin=call.caller.is_admin) for job in jobs)


async def latest_progress(redis: Redis, jobs: Iterable[Job]) -> dict[str, Progress]:
    """Return what the running ones of these jobs reported last; nothing when Redis does not answer soon."""
    running = [job.id for job in jobs if job.status is Status.RUNNING]
    if not running:
        return {}
    try:
        async with asyncio.timeout(_PROGRESS_S):
            return await read_progress(redis, running)
    except OUTAGES:
        return {}
