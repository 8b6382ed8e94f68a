"""The work of ``system.monitor_queues``: look, judge by the thresholds, keep one alert for each thing wrong."""

from collections.abc import Sequence
from datetime import datetime

from app.history.figures import Stretch, count_by_queue, long_running
from app.installation import Installation
from app.jobs import system
from app.jobs.system import MonitorAlert, MonitoredQueue, MonitorQueuesParams, MonitorQueuesResult
from app.live.workers import Heartbeat, alive_workers
from app.records.alerts import Finding, note_findings
from workers.context import Context
from workers.families import work
from workers.families.system.findings import (
    FAILURE_WINDOW,
    MAX_RUNNING,
    failures,
    long_jobs,
    long_queues,
    shortages,
    unserved_queues,
)
from workers.families.system.health import check_disk, check_memory


@work(system.monitor_queues)
async def monitor_queues(ctx: Context, _params: MonitorQueuesParams) -> MonitorQueuesResult:
    """Measure every queue and raise, go on with or close alerts; the same thing is one alert while it lasts."""
    house = ctx.installation
    workers = await alive_workers(house.redis)
    queues = await _measure(house, workers, ctx.now)
    await ctx.progress(50, f"{len(queues)} queues, {len(workers)} workers", stage="queues")
    alerts = await note_findings(house.database, await _judge(house, queues, len(workers), ctx.now), ctx.now)
    shown = [MonitorAlert(**{name: getattr(alert, name) for name in MonitorAlert.model_fields}) for alert in alerts]
    return MonitorQueuesResult(timestamp=ctx.now, queues=queues, alerts=tuple(shown), healthy=not shown)


async def _measure(house: Installation, workers: Sequence[Heartbeat], now: datetime) -> dict[str, MonitoredQueue]:
    return {
        stats.name: MonitoredQueue(
            ready=stats.ready,
            scheduled=stats.scheduled,
            running=stats.running,
            consumers=sum(stats.name in worker.queues for worker in workers),
            paused=stats.is_paused,
            oldest_ready_age_s=max(0.0, (now - stats.oldest_ready).total_seconds()) if stats.oldest_ready else None,
        )
        for stats in await house.queue.stats(house.catalogue.queues)
    }


async def _judge(house: Installation, queues: dict[str, MonitoredQueue], workers: int, now: datetime) -> list[Finding]:
    lately = await count_by_queue(house.database, Stretch(since=now - FAILURE_WINDOW, until=now))
    return [
        *long_queues(queues),
        *long_jobs(await long_running(house.database, now, longer_than=MAX_RUNNING), now),
        *unserved_queues(queues, workers=workers),
        *shortages(check_disk(house.settings), check_memory()),
        *failures(lately.values()),
    ]
