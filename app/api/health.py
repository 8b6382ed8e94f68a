"""How the installation is doing: health for people, probes for orchestrators, metrics for Prometheus."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from app import metrics
from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.api.redis import age_s, asking_redis
from app.api.resources import METRICS
from app.clock import utc_now
from app.errors import Unavailable
from app.history.migrate import current_revision
from app.installation import Installation
from app.jobs.fields import Model
from app.live.totals import BUCKETS_S, read_totals
from app.live.workers import alive_workers

_DATABASE_S = 5.0  # how long a question to the database may take

Check = Literal["ok", "out", "not migrated", "none"]


class Checks(Model):
    """One word per part of the installation."""

    redis: Check
    """``ok`` or ``out``."""
    database: Check
    """``ok``, ``out`` or ``not migrated``."""
    workers: Check | None = None
    """``ok`` or ``none``; null where it was not asked."""


class Health(Model):
    """How the installation is doing."""

    status: Literal["healthy", "degraded", "unhealthy"]
    """``degraded``: jobs are accepted but may wait; ``unhealthy``: none are accepted."""
    checks: Checks
    """One word per part."""
    timestamp: datetime
    """When this was found."""


class Readiness(Model):
    """Whether this process can take requests."""

    status: Literal["ready", "degraded"]
    """``degraded``: Redis is out, submits are still accepted."""
    checks: Checks
    """One word per part."""


class Liveness(Model):
    """This process is alive."""

    status: Literal["ok"] = "ok"
    """Always the same."""


def health_endpoints() -> tuple[Endpoint, ...]:
    """Return the routes below ``/api``."""
    return (endpoint("GET", "/tasks/health", show_health),)


def probe_endpoints(head_revision: str, *, metrics_open: bool) -> Iterator[Endpoint]:
    """Yield the routes that stand outside ``/api``; ``head_revision`` is the schema that is needed.

    They are open, the metrics if they are so set.
    """

    async def show_readiness(call: Call) -> Readiness:
        """Tell whether this process can take requests: 503 when the database is out or not migrated."""
        return await _readiness(call, head_revision)

    yield endpoint("GET", "/health", show_liveness, access=Access.OPEN)
    yield endpoint("GET", "/ready", show_readiness, access=Access.OPEN)
    access = Access.OPEN if metrics_open else Access.CALLER
    yield endpoint("GET", "/metrics", show_metrics, access=access, answer_type="text/plain")


async def show_health(call: Call) -> Health:
    """Tell how the installation is doing; always 200."""
    database = await _check_database(call.installation)
    workers = await _count_workers(call.installation)
    checks = Checks(
        redis="out" if workers is None else "ok",
        database=database,
        workers="ok" if workers else "none",
    )
    is_well = workers is not None and workers > 0
    status: Literal["healthy", "degraded", "unhealthy"] = "healthy" if is_well else "degraded"
    return Health(status=status if database == "ok" else "unhealthy", checks=checks, timestamp=utc_now())


async def show_liveness(call: Call) -> Liveness:
    """Tell that this process is alive."""
    return Liveness()


async def show_metrics(call: Call) -> web.Response:
    """Show metrics for Prometheus; without those of the jobs while Redis is out."""
    text = call.request.app[METRICS].render() + await _job_metrics(call.installation)
    return web.Response(body=text, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


async def _job_metrics(installation: Installation) -> bytes:
    try:
        async with asking_redis():
            totals = await read_totals(installation.redis)
            workers = await alive_workers(installation.redis)
            stats = await installation.queue.stats(installation.catalogue.queues)
    except Unavailable:
        return metrics.render([metrics.gauge("redis_up", "1 while Redis answers.", 0)])
    now = utc_now()
    gauges = [
        metrics.QueueGauges(
            name=queue.name,
            ready=queue.ready,
            scheduled=queue.scheduled,
            running=queue.running,
            is_paused=queue.is_paused,
            oldest_ready_age_s=age_s(queue, now) or 0.0,
        )
        for queue in stats
    ]
    families = [
        metrics.gauge("redis_up", "1 while Redis answers.", 1),
        metrics.gauge("workers_alive", "Workers that were heard of lately.", len(workers)),
        metrics.gauge("worker_slots", "Jobs that all live workers can run at a time.", sum(w.slots for w in workers)),
        *metrics.job_families(totals, BUCKETS_S),
        *metrics.queue_families(gauges),
    ]
    return metrics.render(families)


async def _readiness(call: Call, head_revision: str) -> Readiness:
    database = await _check_database(call.installation, head_revision)
    if database != "ok":
        raise Unavailable(f"The database is {database}; nothing can be accepted.")
    is_redis_out = await _count_workers(call.installation) is None
    checks = Checks(redis="out" if is_redis_out else "ok", database=database)
    return Readiness(status="degraded" if is_redis_out else "ready", checks=checks)


async def _check_database(installation: Installation, head_revision: str | None = None) -> Check:
    try:
        async with asyncio.timeout(_DATABASE_S):
            found = await current_revision(installation.database)
    except (Unavailable, TimeoutError):
        return "out"
    return "ok" if found is not None and head_revision in (None, found) else "not migrated"


async def _count_workers(installation: Installation) -> int | None:
    """Count the live workers; None when Redis does not answer."""
    try:
        async with asking_redis():
            return len(await alive_workers(installation.redis))
    except Unavailable:
        return None
