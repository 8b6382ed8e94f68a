"""The work of ``ari.aggregate_snapshots``: everything is counted in SQL, only the figures arrive here."""

from datetime import timedelta

from app.database import Database
from app.jobs import ari
from app.jobs.ari import AggregateSnapshotsParams, AggregateSnapshotsResult, Metric, SnapshotPeriod, UserSummary
from app.records.ari_snapshots import Window, measure_extent, summarize_metric, summarize_users
from workers.context import Context
from workers.families import work

MAX_LISTED_USERS = 500  # at most 1.5 KB each, so that a result stays below its 1 MiB


@work(ari.aggregate_snapshots)
async def aggregate_snapshots(ctx: Context, params: AggregateSnapshotsParams) -> AggregateSnapshotsResult:
    """Summarise each metric over the window and, when it is about all users, each user."""
    database = ctx.records.database
    since = ctx.now - timedelta(hours=params.time_window_hours)
    window = Window(user_id=params.user_id, since=since, until=ctx.now)
    extent = await measure_extent(database, window)
    await ctx.progress(5, f"{extent.snapshots} snapshots of {extent.users} users", stage="metrics")
    metrics = {}
    for done, metric in enumerate(Metric, 1):
        metrics[metric] = await summarize_metric(database, window, metric)
        await ctx.progress(5 + 65 * done / len(Metric), f"summarised {metric}", stage="metrics")
    users = await _list_users(ctx, database, window, extent.users) if params.user_id is None else None
    await ctx.progress(100, "done", stage="done")
    return AggregateSnapshotsResult(
        user_id=params.user_id,
        time_window_hours=params.time_window_hours,
        aggregated_count=extent.snapshots,
        snapshot_period=SnapshotPeriod(start=since, end=ctx.now),
        metrics_summary=metrics,
        user_count=extent.users,
        users=users,
        users_omitted=0 if users is None else max(0, extent.users - len(users)),
    )


async def _list_users(ctx: Context, database: Database, window: Window, total: int) -> tuple[UserSummary, ...]:
    listed: list[UserSummary] = []
    expected = min(total, MAX_LISTED_USERS)
    async for batch in summarize_users(database, window):
        listed += batch[: MAX_LISTED_USERS - len(listed)]
        share = min(1.0, len(listed) / max(1, expected))
        await ctx.progress(70 + 29 * share, f"{len(listed)} of {total} users", stage="users")
        if len(listed) == MAX_LISTED_USERS:
            break
    return tuple(listed)
