"""The work of ``system.daily_metrics``: everything is counted in SQL, only the figures arrive here."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time, timedelta

from app.history.figures import (
    Stretch,
    count_by_queue,
    count_errors,
    count_submitters,
    duration_percentiles,
    wait_percentiles,
)
from app.jobs import system
from app.jobs.status import Status
from app.jobs.system import (
    DailyMetricsParams,
    DailyMetricsResult,
    ErrorCounts,
    Metrics,
    Percentiles,
    TaskCounts,
    UserCounts,
)
from workers.context import Context
from workers.families import work


@work(system.daily_metrics)
async def daily_metrics(ctx: Context, params: DailyMetricsParams) -> DailyMetricsResult:
    """Count what ended in one UTC day; a day without tasks has zeros and nulls."""
    database = ctx.installation.database
    day = params.date or (ctx.now - timedelta(days=1)).date()
    since = datetime.combine(day, time(), UTC)
    stretch = Stretch(since=since, until=since + timedelta(days=1))
    by_queue = await count_by_queue(database, stretch)
    await ctx.progress(40, "counted outcomes", stage="outcomes")
    tasks = _counts(by_queue.values())
    durations = await duration_percentiles(database, stretch)
    await ctx.progress(70, "ordered durations", stage="durations")
    waits = await wait_percentiles(database, stretch)
    await ctx.progress(90, "ordered waits", stage="waits")
    errors = await count_errors(database, stretch)
    metrics = Metrics(
        tasks=tasks,
        by_queue={queue: _counts([counts]) for queue, counts in sorted(by_queue.items())},
        durations=_percentiles(durations),
        waits=_percentiles(waits),
        errors=ErrorCounts(total=tasks.failed, error_rate=_share(tasks.failed, tasks.completed), by_code=errors),
        users=UserCounts(unique_active=await count_submitters(database, stretch)),
    )
    return DailyMetricsResult(date=day, generated_at=ctx.now, metrics=metrics)


def _counts(groups: Iterable[Mapping[Status, int]]) -> TaskCounts:
    counts: Counter[Status] = Counter()
    for group in groups:
        counts.update(group)
    completed, failed = counts[Status.COMPLETED], counts[Status.FAILED]
    return TaskCounts(
        total=counts.total(),
        completed=completed,
        failed=failed,
        cancelled=counts[Status.CANCELLED],
        success_rate=_share(completed, failed),
    )


def _share(count: int, rest: int) -> float | None:
    return round(count / (count + rest), 6) if count + rest else None


def _percentiles(found: Mapping[int, float]) -> Percentiles:
    return Percentiles(**{f"p{percent}": round(seconds, 3) for percent, seconds in found.items()})
