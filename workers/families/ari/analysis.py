"""The work of ``ari.analyze_trends``: read one user's snapshots, weigh each metric in a thread, conclude."""

from collections.abc import Mapping
from datetime import timedelta

from app.jobs import ari
from app.jobs.ari import (
    AlertKind,
    AnalysisStatus,
    AnalyzeTrendsParams,
    AnalyzeTrendsResult,
    Direction,
    Metric,
    Severity,
    Trend,
    TrendAlert,
)
from app.records.ari_snapshots import Window, measure_extent, read_snapshots
from workers.context import Context
from workers.families import work
from workers.families.ari.rules import (
    change_alert,
    find_tendencies,
    is_near_zero,
    severity_of,
    snapshot_alerts,
    tendency_alerts,
    worsening,
)
from workers.families.ari.series import Series, join_pages, page_series
from workers.families.ari.trends import Evidence, conclude, weigh

MIN_SNAPSHOTS = 2
NOTICEABLE = 1.0  # percent, or points: a trend of less is significant when days enough bear it out, and still nothing


@work(ari.analyze_trends)
async def analyze_trends(ctx: Context, params: AnalyzeTrendsParams) -> AnalyzeTrendsResult:
    """Judge every metric by the plain rules and by statistics; say so when there is too little to judge."""
    series = await _read_series(ctx, params)
    evidence = await _weigh_all(ctx, series.daily()) if len(series) >= MIN_SNAPSHOTS else {}
    trends = conclude(series, evidence, params.threshold_percent)
    alerts = judge(series, evidence, trends, params.threshold_percent)
    await ctx.progress(100, f"{len(alerts)} alerts", stage="done")
    return AnalyzeTrendsResult(
        user_id=params.user_id,
        lookback_days=params.lookback_days,
        threshold_percent=params.threshold_percent,
        status=AnalysisStatus.ANALYZED if trends else AnalysisStatus.INSUFFICIENT_DATA,
        data_points=len(series),
        trends=trends,
        tendencies=find_tendencies(series),
        alerts=alerts,
        analysis_timestamp=ctx.now,
    )


def judge(
    series: Series, evidence: Mapping[Metric, Evidence], trends: Mapping[Metric, Trend], threshold_percent: float
) -> tuple[TrendAlert, ...]:
    """Return what got worse, critical ones first; without trends, single snapshots alone are judged."""
    alerts = snapshot_alerts(series)
    if trends:
        alerts += _metric_alerts(trends, evidence, threshold_percent) + tendency_alerts(series)
    return tuple(sorted(alerts, key=lambda alert: alert.severity is not Severity.CRITICAL))


async def _read_series(ctx: Context, params: AnalyzeTrendsParams) -> Series:
    database = ctx.records.database
    window = Window(user_id=params.user_id, since=ctx.now - timedelta(days=params.lookback_days), until=ctx.now)
    total = (await measure_extent(database, window)).snapshots
    await ctx.progress(2, f"{total} snapshots", stage="read")
    pages: list[Series] = []
    done = 0
    async for page in read_snapshots(database, window):
        pages.append(page_series(page))
        done += len(page.times)
        await ctx.progress(2 + 48 * min(1.0, done / max(1, total)), f"read {done} of {total} snapshots", stage="read")
    return join_pages(pages)


async def _weigh_all(ctx: Context, daily: Series) -> dict[Metric, Evidence]:
    evidence: dict[Metric, Evidence] = {}
    for done, metric in enumerate(Metric, 1):
        evidence[metric] = await ctx.run_thread(weigh, daily, metric)
        await ctx.progress(50 + 49 * done / len(Metric), f"weighed {metric} over {len(daily)} days", stage="weigh")
    return evidence


def _metric_alerts(
    trends: Mapping[Metric, Trend], evidence: Mapping[Metric, Evidence], threshold_percent: float
) -> list[TrendAlert]:
    """Return the alerts of the plain change and of the significant trend, metric by metric."""
    alerts: list[TrendAlert | None] = []
    for metric, trend in trends.items():
        alerts.append(change_alert(metric, trend.first_value, trend.last_value, threshold_percent))
        alerts.append(_trend_alert(metric, trend, evidence[metric]))
    return [alert for alert in alerts if alert is not None]


def _trend_alert(metric: Metric, trend: Trend, weighed: Evidence) -> TrendAlert | None:
    for_the_worse = Direction.INCREASING if metric is Metric.AI_RELIANCE else Direction.DECREASING
    if not trend.significant or trend.direction is not for_the_worse or weighed.line is None:
        return None
    worse = worsening(metric, weighed.line.first, weighed.line.last)
    if worse < NOTICEABLE:
        return None
    points = is_near_zero(weighed.line.first)
    return TrendAlert(
        metric=metric,
        severity=severity_of(worse),
        decline_percent=None if points else worse,
        message=f"{metric} is {trend.direction} over {trend.days} days: {worse:.1f}{' points' if points else '%'} "
        f"along the fitted line, q = {trend.q_value:.2g}",
        kind=AlertKind.TREND,
    )
