"""Tasks as a classic broker's tools ask for them: what runs, what waits for a time, what is claimed. Bare arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import RootModel

from app.api.endpoint import Call, Endpoint, endpoint
from app.api.filters import Limit, OriginFilter, origin_of
from app.api.redis import asking_redis
from app.api.schemas import JsonObject
from app.clock import utc_now
from app.history.reader import JobFilter
from app.history.rows import Job
from app.jobs.fields import Model
from app.jobs.status import Status


class InspectedTask(Model):
    """One task in a classic broker's words."""

    worker: str | None
    """The worker that has it; null while none has."""
    task_id: str
    """Its id."""
    task_name: str
    """Its kind."""
    args: tuple[()] = ()
    """Always empty: parameters have names here."""
    kwargs: JsonObject
    """Its parameters."""
    time_start: datetime | None
    """When its present attempt started; null while it waits."""
    eta: datetime | None
    """When it may start; null when that is not in the future."""
    queue: str
    """The queue it waits in."""
    priority: int
    """1–10; higher runs first."""
    user_id: str | None
    """Whom it is about."""


class InspectedTasks(RootModel[tuple[InspectedTask, ...]]):
    """Tasks, oldest first."""


class InspectionQuery(OriginFilter):
    """How many of them, and whose."""

    limit: Limit = 1000
    """The most tasks to answer."""


def inspection_endpoints() -> Iterator[Endpoint]:
    """Yield the three lists."""
    yield endpoint("GET", "/tasks/active/list", list_active_tasks)
    yield endpoint("GET", "/tasks/scheduled/list", list_scheduled_tasks)
    yield endpoint("GET", "/tasks/reserved/list", list_reserved_tasks)


async def list_active_tasks(call: Call, query: InspectionQuery) -> InspectedTasks:
    """List what runs now."""
    return await _page(call, _wanted(call, query, Status.RUNNING), query)


async def list_scheduled_tasks(call: Call, query: InspectionQuery) -> InspectedTasks:
    """List what waits for a time or a retry."""
    return await _page(call, replace(_wanted(call, query, Status.PENDING), due_after=utc_now()), query)


async def list_reserved_tasks(call: Call, query: InspectionQuery) -> InspectedTasks:
    """List what a worker has claimed and not started yet: a matter of milliseconds."""
    async with asking_redis():
        claimed = await call.installation.queue.claimed()
    rows = await call.installation.reader.get_many(list(claimed)[:1000])
    origin = origin_of(query)
    meant = [job for job in rows.values() if origin == "all" or (job.tick_at is not None) == (origin == "cron")]
    waiting = [job for job in meant if job.status is Status.PENDING and call.caller.may_see(job.submitted_by)]
    workers = {job_id: token.rpartition(":")[0] for job_id, token in claimed.items()}
    return _shown(sorted(waiting, key=lambda job: job.id)[: query.limit], workers)


async def _page(call: Call, wanted: JobFilter, query: InspectionQuery) -> InspectedTasks:
    page = await call.installation.reader.page(wanted, sort="created_at", limit=query.limit)
    return _shown(page.jobs, {})


def _wanted(call: Call, query: InspectionQuery, status: Status) -> JobFilter:
    owner = None if call.caller.is_admin else call.caller.user_id
    return JobFilter(owner=owner, statuses=frozenset({status}), origin=origin_of(query))


def _shown(jobs: Sequence[Job], workers: Mapping[str, str]) -> InspectedTasks:
    now = utc_now()
    return InspectedTasks(tuple(_inspected(job, workers.get(job.id), now) for job in jobs))


def _inspected(job: Job, worker: str | None, now: datetime) -> InspectedTask:
    is_running = job.status is Status.RUNNING
    return InspectedTask(
        worker=job.worker_id if is_running else worker,
        task_id=job.id,
        task_name=job.kind,
        kwargs=job.params,
        time_start=job.started_at if is_running else None,
        eta=job.due_at if not is_running and job.due_at > now else None,
        queue=job.queue,
        priority=job.priority,
        user_id=job.user_id,
    )
