"""The routes of operators: queues, workers, and what there is to submit."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import Field

from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.api.redis import age_s, asking_redis
from app.api.resources import THROUGHPUT
from app.clock import utc_now
from app.errors import NotFound
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.fields import Model
from app.live.control import tell_drain
from app.live.workers import Heartbeat, alive_workers
from app.queue.client import QueueStats


class Queue(Model):
    """One queue now."""

    name: str
    """Its name."""
    messages: int
    """The same as ``ready``, for clients that know that word."""
    ready: int
    """Jobs that could start now."""
    scheduled: int
    """Jobs that wait for a time or a retry."""
    running: int
    """Jobs that run now."""
    paused: bool
    """Whether nothing is taken from it at present."""
    oldest_ready_age_s: float | None
    """How long the oldest ready job has waited, in seconds; null when none is ready."""
    consumers: int | None
    """Live workers that serve it."""
    rate: float | None
    """Jobs that ended per second over about the last minute; null just after the start."""


class Queues(Model):
    """All queues."""

    queues: tuple[Queue, ...]
    """By name."""
    total_queues: int
    """How many."""


class Worker(Model):
    """One live worker."""

    id: str
    """Its id."""
    host: str
    """The machine it runs on."""
    pid: int
    """Its process id there."""
    queues: tuple[str, ...]
    """The queues it serves."""
    slots: int
    """How many jobs it runs at a time."""
    running: int
    """How many it runs now."""
    processed: int
    """How many attempts it has ended."""
    failed: int
    """How many of them failed."""
    rss: int
    """Its memory, in bytes."""
    loop_lag: float
    """How late its event loop was at the last beat, in seconds."""
    started_at: datetime
    """When it started."""
    last_heartbeat: datetime
    """When it was last heard of."""


class Workers(Model):
    """All live workers."""

    workers: tuple[Worker, ...]
    """By id."""
    total_workers: int
    """How many."""


class WorkerPool(Model):
    """How a worker runs jobs."""

    implementation: str
    """What its slots are made of."""
    max_concurrency: int = Field(serialization_alias="max-concurrency")
    """How many jobs it runs at a time."""


class WorkerTotals(Model):
    """What a worker has done."""

    tasks: int
    """How many attempts it has ended."""


class WorkerStats(Model):
    """One live worker in a classic broker's words."""

    pool: WorkerPool
    """How it runs jobs."""
    total: WorkerTotals
    """What it has done."""


class AllWorkerStats(Model):
    """All live workers in a classic broker's words."""

    workers: dict[str, WorkerStats]
    """By id."""
    total_workers: int
    """How many."""


class KnownTask(Model):
    """One kind of task that can be submitted."""

    task_name: str
    """The kind."""
    family: str
    """Its family."""
    summary: str
    """What it does."""
    path: str
    """Where it is submitted."""
    task_type: str
    """The broad class it belongs to."""
    queue: str
    """The queue it waits in."""
    default_priority: int
    """Its priority unless another is asked for."""
    max_priority: int
    """A higher request is lowered to this."""
    max_retries: int
    """How many failed attempts are tried again by default."""
    soft_time_limit_seconds: float
    """After this long an attempt is asked to finish."""
    hard_time_limit_seconds: float
    """After this long an attempt is stopped."""
    aliases: tuple[str, ...]
    """Other names that enqueue accepts."""
    admin_only: bool
    """Whether only administrators may submit it."""
    params_schema: dict[str, Any]
    """What it takes, as a JSON schema."""
    result_schema: dict[str, Any]
    """What it returns, as a JSON schema."""


class KnownTasks(Model):
    """Every kind of task that can be submitted."""

    tasks: tuple[str, ...]
    """The kinds."""
    total: int
    """How many."""
    catalogue: tuple[KnownTask, ...]
    """The same with everything there is to know of each."""


def operation_endpoints(catalogue: Catalogue) -> Iterator[Endpoint]:
    """Yield the routes below ``/api``."""
    known = _known_tasks(catalogue)

    async def list_registered_tasks(call: Call) -> KnownTasks:
        """List every kind of task, with its schemas and limits."""
        return known

    yield endpoint("GET", "/tasks/registered/list", list_registered_tasks)
    yield endpoint("GET", "/tasks/queues/stats", show_queues)
    yield endpoint("GET", "/tasks/workers/status", show_workers)
    yield endpoint("GET", "/tasks/workers/stats", show_worker_stats)
    yield endpoint("POST", "/workers/{worker_id}/drain", drain_worker, access=Access.ADMIN)


async def show_queues(call: Call) -> Queues:
    """Show how much waits and runs in each queue."""
    installation, throughput = call.installation, call.request.app[THROUGHPUT]
    async with asking_redis():
        stats = await installation.queue.stats(installation.catalogue.queues)
        workers = await alive_workers(installation.redis)
    now = utc_now()
    queues = tuple(_queue(queue, workers, throughput.rate(queue.name), now) for queue in stats)
    return Queues(queues=queues, total_queues=len(queues))


async def show_workers(call: Call) -> Workers:
    """Show the live workers."""
    async with asking_redis():
        heartbeats = await alive_workers(call.installation.redis)
    workers = tuple(Worker.model_validate(beat, from_attributes=True) for beat in heartbeats)
    return Workers(workers=workers, total_workers=len(workers))


async def show_worker_stats(call: Call) -> AllWorkerStats:
    """Show the live workers in a classic broker's words."""
    async with asking_redis():
        heartbeats = await alive_workers(call.installation.redis)
    workers = {
        beat.id: WorkerStats(
            pool=WorkerPool(implementation="asyncio", max_concurrency=beat.slots),
            total=WorkerTotals(tasks=beat.processed),
        )
        for beat in heartbeats
    }
    return AllWorkerStats(workers=workers, total_workers=len(workers))


async def drain_worker(call: Call) -> Worker:
    """Tell a worker to take nothing more, finish what it runs, and stop."""
    worker_id = call.request.match_info["worker_id"]
    async with asking_redis():
        heartbeats = {beat.id: beat for beat in await alive_workers(call.installation.redis)}
        if worker_id not in heartbeats:
            raise NotFound(f"There is no live worker {worker_id!r}: not found.")
        await tell_drain(call.installation.redis, worker_id)
    return Worker.model_validate(heartbeats[worker_id], from_attributes=True)


def _queue(stats: QueueStats, workers: list[Heartbeat], rate: float | None, now: datetime) -> Queue:
    return Queue(
        name=stats.name,
        messages=stats.ready,
        ready=stats.ready,
        scheduled=stats.scheduled,
        running=stats.running,
        paused=stats.is_paused,
        oldest_ready_age_s=age_s(stats, now),
        consumers=sum(stats.name in worker.queues for worker in workers),
        rate=rate,
    )


def _known_tasks(catalogue: Catalogue) -> KnownTasks:
    known = tuple(_known_task(job_type) for job_type in catalogue)
    return KnownTasks(tasks=tuple(task.task_name for task in known), total=len(known), catalogue=known)


def _known_task(job_type: AnyJobType) -> KnownTask:
    return KnownTask(
        task_name=job_type.kind,
        family=job_type.family,
        summary=job_type.summary,
        path=f"/api/tasks/{job_type.route}",
        task_type=job_type.task_type,
        queue=job_type.queue,
        default_priority=job_type.priority,
        max_priority=job_type.max_priority,
        max_retries=job_type.retry.max_retries,
        soft_time_limit_seconds=job_type.limits.soft_s,
        hard_time_limit_seconds=job_type.limits.hard_s,
        aliases=job_type.aliases,
        admin_only=job_type.is_admin_only,
        params_schema=job_type.params.model_json_schema(),
        result_schema=job_type.result.model_json_schema(mode="serialization"),
    )
