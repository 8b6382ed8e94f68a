"""The work of ``ari.analyze_active_users``: the analysis of ``ari.analyze_trends``, user by user, in short."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from app.jobs import ari
from app.jobs.ari import (
    AnalysisStatus,
    AnalyzeActiveUsersParams,
    AnalyzeActiveUsersResult,
    Metric,
    Severity,
    UserTrends,
)
from app.records.ari_snapshots import Window, measure_extent, read_snapshots, read_users
from workers.context import Context
from workers.families import work
from workers.families.ari.analysis import MIN_SNAPSHOTS, judge
from workers.families.ari.rules import find_tendencies
from workers.families.ari.series import Series, join_pages, page_series
from workers.families.ari.trends import conclude, weigh

MAX_LISTED_USERS = 500  # at most 0.6 KB each, so that a result stays below its 1 MiB


@dataclass(slots=True)
class _Survey:
    """The sums over all users so far, and the users to list."""

    users: int = 0
    analyzed: int = 0
    alerted: int = 0
    snapshots: int = 0
    critical: int = 0
    warnings: int = 0
    listed: list[UserTrends] = field(default_factory=list)

    def add(self, found: Iterable[UserTrends]) -> None:
        """Count more users, and list the worst."""
        for user in found:
            self.users += 1
            self.analyzed += user.status is AnalysisStatus.ANALYZED
            self.alerted += bool(user.alerted_metrics)
            self.snapshots += user.data_points
            self.critical += user.critical_alerts
            self.warnings += user.warning_alerts
            self.listed.append(user)
        self.listed.sort(key=lambda user: (-user.critical_alerts, -user.warning_alerts, user.user_id))
        del self.listed[MAX_LISTED_USERS:]


@work(ari.analyze_active_users)
async def analyze_active_users(ctx: Context, params: AnalyzeActiveUsersParams) -> AnalyzeActiveUsersResult:
    """Go through the users in batches, in the order of their ids; memory holds one user's snapshots at a time."""
    database = ctx.records.database
    window = Window(user_id=None, since=ctx.now - timedelta(days=params.lookback_days), until=ctx.now)
    extent = await measure_extent(database, window)
    survey = _Survey()
    async for batch in read_users(database, window):
        found = []
        for user_id in batch:
            series = await _read_series(ctx, Window(user_id=user_id, since=window.since, until=window.until))
            found.append(await ctx.run_thread(_summarize, user_id, series, params.threshold_percent))
            done = survey.users + len(found)
            percent = 100 * min(1.0, done / max(1, extent.users))
            await ctx.progress(percent, f"{done} of {extent.users} users", stage="users")
        survey.add(found)
    return AnalyzeActiveUsersResult(
        lookback_days=params.lookback_days,
        threshold_percent=params.threshold_percent,
        user_count=survey.users,
        analyzed_count=survey.analyzed,
        alerted_count=survey.alerted,
        data_points=survey.snapshots,
        critical_alerts=survey.critical,
        warning_alerts=survey.warnings,
        users=tuple(survey.listed),
        users_omitted=survey.users - len(survey.listed),
        analysis_timestamp=ctx.now,
    )


async def _read_series(ctx: Context, window: Window) -> Series:
    return join_pages([page_series(page) async for page in read_snapshots(ctx.records.database, window)])


def _summarize(user_id: str, series: Series, threshold_percent: float) -> UserTrends:
    """Analyse one user's snapshots. Takes some milliseconds a month; meant for a thread."""
    daily = series.daily()
    evidence = {metric: weigh(daily, metric) for metric in Metric} if len(series) >= MIN_SNAPSHOTS else {}
    trends = conclude(series, evidence, threshold_percent)
    alerts = judge(series, evidence, trends, threshold_percent)
    critical = sum(alert.severity is Severity.CRITICAL for alert in alerts)
    return UserTrends(
        user_id=user_id,
        status=AnalysisStatus.ANALYZED if trends else AnalysisStatus.INSUFFICIENT_DATA,
        data_points=len(series),
        critical_alerts=critical,
        warning_alerts=len(alerts) - critical,
        alerted_metrics=tuple(dict.fromkeys(alert.metric for alert in alerts)),
        tendencies=find_tendencies(series),
    )
