"""The ARI family: how a user's autonomy develops, from stored snapshots. The contract; pure data.

All metrics are 0–1, except ``delta_agency`` and ``skill_development``, which are −1–1.
"""

from enum import StrEnum
from typing import Literal

from pydantic import NonNegativeInt

from app.jobs.contract import Family, JobType, RetryPolicy, TaskType
from app.jobs.fields import Days, Hours, Identifier, Model, Moment, Params, Percent, Result


class Metric(StrEnum):
    """What every snapshot measures; more is better, except for ``ai_reliance``."""

    DECISION_QUALITY = "decision_quality"
    """How good the user's decisions were, 0–1."""
    SKILL_DEVELOPMENT = "skill_development"
    """How the user's own skill changed, −1–1."""
    AI_RELIANCE = "ai_reliance"
    """How much the user leant on the AI, 0–1; less is better."""
    BOTTLENECK_RESOLUTION = "bottleneck_resolution"
    """How well bottlenecks were got out of the way, 0–1."""
    USER_CONFIDENCE = "user_confidence"
    """How sure of themselves the user was, 0–1."""
    ENGAGEMENT = "engagement"
    """How engaged the user was, 0–1."""
    AUTONOMY_PERCEPTION = "autonomy_perception"
    """How autonomous the user felt, 0–1."""
    AUTONOMY_RETENTION = "autonomy_retention"
    """How much control the user kept, 0–1."""
    DELTA_AGENCY = "delta_agency"
    """How the user's agency changed on balance, −1–1."""


# --- ari.aggregate_snapshots -------------------------------------------------------------------


class AggregateSnapshotsParams(Params):
    """Summarise the snapshots of the last hours, of one user or of all."""

    user_id: Identifier | None = None
    """Whose snapshots; null takes those of all users."""
    time_window_hours: Hours = 24
    """How far back from now the window reaches, in hours."""


class SnapshotPeriod(Model):
    """The window that was looked at, both ends included."""

    start: Moment
    """When the window begins."""
    end: Moment
    """When the window ends: the moment the job started."""


class Quantiles(Model):
    """Where a metric's values lie, by linear interpolation between the two nearest (Hyndman & Fan 1996, type 7)."""

    p05: float
    """5 % of the values are at or below this."""
    p25: float
    """The lower quartile."""
    p50: float
    """The median."""
    p75: float
    """The upper quartile."""
    p95: float
    """95 % of the values are at or below this."""


class MetricSummary(Model):
    """One metric over the window; all numbers but the count are null when there is no snapshot."""

    count: NonNegativeInt = 0
    """How many snapshots carry the metric."""
    average: float | None = None
    """The arithmetic mean."""
    min: float | None = None
    """The lowest value."""
    max: float | None = None
    """The highest value."""
    latest: float | None = None
    """The value of the newest snapshot."""
    stdev: float | None = None
    """The sample standard deviation (n − 1); null for fewer than two snapshots."""
    quantiles: Quantiles | None = None
    """Where the values lie."""


class UserSummary(Model):
    """One user's part of a summary over all users."""

    user_id: str
    """Whose snapshots these are."""
    aggregated_count: NonNegativeInt
    """How many snapshots the user has in the window."""
    latest_at: Moment
    """When the user's newest snapshot was taken."""
    averages: dict[Metric, float]
    """The mean of each metric, to six decimals."""


class AggregateSnapshotsResult(Result):
    """The snapshots of the window in numbers."""

    user_id: str | None
    """Whose snapshots; null is all users."""
    time_window_hours: int
    """The length of the window that was asked for, in hours."""
    aggregated_count: NonNegativeInt
    """How many snapshots lie in the window."""
    snapshot_period: SnapshotPeriod
    """The window itself."""
    metrics_summary: dict[Metric, MetricSummary]
    """Each of the nine metrics, over all snapshots of the window."""
    user_count: NonNegativeInt
    """How many users have a snapshot in the window."""
    users: tuple[UserSummary, ...] | None = None
    """The users one by one, in the order of their ids, at most 500; null when one user was asked for."""
    users_omitted: NonNegativeInt = 0
    """How many users more there are than ``users`` lists."""


# --- ari.analyze_trends ------------------------------------------------------------------------


class AnalyzeTrendsParams(Params):
    """Look for what got better or worse for one user."""

    user_id: Identifier
    """Whose snapshots."""
    lookback_days: Days = 30
    """How far back from now the analysis reaches, in days."""
    threshold_percent: Percent = 10
    """A change for the worse beyond this many percent of the first value raises an alert."""


class AnalysisStatus(StrEnum):
    """Whether there was enough to analyse."""

    ANALYZED = "analyzed"
    """There were at least two snapshots."""
    INSUFFICIENT_DATA = "insufficient_data"
    """There were fewer than two snapshots, so nothing is said about trends."""


class Direction(StrEnum):
    """Where a metric is going, whether that is good or bad."""

    INCREASING = "increasing"
    """It goes up."""
    DECREASING = "decreasing"
    """It goes down."""
    STABLE = "stable"
    """It goes nowhere that could be told from chance."""


class ChangePoint(Model):
    """Where a series steps from one level to another; it explains a trend and never raises an alert.

    Dated as break dates are in econometrics (Bai & Perron 2003): by the last point of the old level.
    """

    at: Moment
    """The UTC day, at midnight, of the last point on the old level."""
    index: int
    """How many daily points lie on the old level: the place of the last of them counted from 1, and at the same
    time the place of the first point on the new level counted from 0."""
    before: float
    """The mean of the daily points up to and including ``at``."""
    after: float
    """The mean of the daily points after ``at``."""


class Trend(Model):
    """One metric over time: the plain change, and beside it what statistics say about the daily means."""

    first_value: float
    """The value of the oldest snapshot."""
    last_value: float
    """The value of the newest snapshot."""
    change_percent: float | None
    """(last − first) / |first| · 100; null when the first value is 0."""
    data_points: NonNegativeInt
    """How many snapshots carry the metric."""
    days: NonNegativeInt
    """How many UTC days have a snapshot: the points that the statistics rest on, one a day, its mean."""
    slope_per_day: float | None
    """The Theil-Sen slope in units of the metric per day; null for fewer than two days."""
    p_value: float | None
    """Two-sided, of the Mann-Kendall test allowing for autocorrelation; null below ten days, or when all are equal."""
    q_value: float | None
    """The p-value after Benjamini-Hochberg over the metrics that have one; null when there is no p-value."""
    significant: bool
    """Whether the q-value is below .05, which takes at least ten days."""
    change_point: ChangePoint | None
    """Where the level changed; null below ten days, or when no single step explains more than a line would."""
    direction: Direction
    """From the test where it has ten days (stable when not significant), else from the plain change."""


class AgencyTendency(StrEnum):
    """How ``delta_agency`` of the recent third compares with the older third."""

    INCREASING = "increasing"
    """Higher by more than .1."""
    STABLE = "stable"
    """Within .1."""
    DECREASING = "decreasing"
    """Lower by more than .1."""
    CRITICAL = "critical"
    """The recent mean itself is below −.2."""


class SkillTendency(StrEnum):
    """How ``skill_development`` of the recent third compares with the older third."""

    IMPROVING = "improving"
    """Higher by more than .1."""
    STABLE = "stable"
    """Within .1."""
    DECLINING = "declining"
    """Lower by more than .1."""


class DependencyTendency(StrEnum):
    """How ``ai_reliance`` of the recent third compares with the older third."""

    INCREASING = "increasing"
    """Higher by more than .15."""
    STABLE = "stable"
    """Within .15."""
    DECREASING = "decreasing"
    """Lower by more than .15."""


class Tendencies(Model):
    """The recent third of the snapshots against the older third."""

    agency: AgencyTendency
    """The tendency of ``delta_agency``."""
    skill: SkillTendency
    """The tendency of ``skill_development``."""
    dependency: DependencyTendency
    """The tendency of ``ai_reliance``."""


class Severity(StrEnum):
    """How bad it is."""

    WARNING = "warning"
    """Worth a look."""
    CRITICAL = "critical"
    """Worth an intervention."""


class AlertKind(StrEnum):
    """Which rule raised an alert."""

    CHANGE = "change"
    """The last value is worse than the first by more than the threshold, in percent of the first."""
    ABSOLUTE_CHANGE = "absolute_change"
    """The same in points of the scale (100 points = 1), because the first value is too near zero for percents."""
    TREND = "trend"
    """The daily means get worse by at least 1 % or 1 point along the fitted line, and that is significant."""
    SNAPSHOT = "snapshot"
    """Single snapshots lie beyond a fixed limit; critical when the newest one does."""
    THIRDS = "thirds"
    """The recent third of the snapshots is worse than the older third."""


class TrendAlert(Model):
    """Something that got worse."""

    metric: Metric | Literal["bhir"]
    """What got worse."""
    severity: Severity
    """How bad it is."""
    decline_percent: float | None
    """By how many percent it got worse (for ``ai_reliance``: rose), positive; null where percents mean nothing."""
    message: str
    """One sentence for people."""
    kind: AlertKind
    """Which rule raised it."""


class AnalyzeTrendsResult(Result):
    """What got better or worse for one user."""

    user_id: str
    """Whose snapshots."""
    lookback_days: int
    """How far back the analysis reached, in days."""
    threshold_percent: float
    """The threshold that was asked for, in percent."""
    status: AnalysisStatus
    """Whether there was enough to analyse."""
    data_points: NonNegativeInt
    """How many snapshots lie in the window."""
    trends: dict[Metric, Trend]
    """Each of the nine metrics; empty when there is insufficient data."""
    tendencies: Tendencies | None
    """The recent third against the older third; null for fewer than three snapshots."""
    alerts: tuple[TrendAlert, ...]
    """What got worse, critical ones first; single snapshots are judged even when there is only one."""
    analysis_timestamp: Moment
    """When the job started: the end of the window."""


# --- ari.analyze_active_users ------------------------------------------------------------------


class AnalyzeActiveUsersParams(Params):
    """Look for what got better or worse for every user who has snapshots."""

    lookback_days: Days = 30
    """How far back from now the analysis reaches, in days; who has a snapshot in it is active."""
    threshold_percent: Percent = 10
    """A change for the worse beyond this many percent of the first value raises an alert."""


class UserTrends(Model):
    """One active user in short; ``ari.analyze_trends`` with the same params says the same at length."""

    user_id: str
    """Who it is."""
    status: AnalysisStatus
    """Whether there was enough to analyse."""
    data_points: NonNegativeInt
    """How many snapshots lie in the window."""
    critical_alerts: NonNegativeInt
    """How many alerts are critical."""
    warning_alerts: NonNegativeInt
    """How many alerts are warnings."""
    alerted_metrics: tuple[Metric | Literal["bhir"], ...]
    """What got worse, each once, critical ones first."""
    tendencies: Tendencies | None
    """The recent third of the snapshots against the older third; null for fewer than three snapshots."""


class AnalyzeActiveUsersResult(Result):
    """What got better or worse for all active users."""

    lookback_days: int
    """How far back the analysis reached, in days."""
    threshold_percent: float
    """The threshold that was asked for, in percent."""
    user_count: NonNegativeInt
    """How many users are active."""
    analyzed_count: NonNegativeInt
    """How many of them have snapshots enough to analyse; for the others there is insufficient data."""
    alerted_count: NonNegativeInt
    """How many have an alert."""
    data_points: NonNegativeInt
    """How many snapshots of all users lie in the window."""
    critical_alerts: NonNegativeInt
    """How many alerts of all users are critical."""
    warning_alerts: NonNegativeInt
    """How many alerts of all users are warnings."""
    users: tuple[UserTrends, ...]
    """The users one by one, those with the most critical alerts first, at most 500."""
    users_omitted: NonNegativeInt
    """How many users more there are than ``users`` lists."""
    analysis_timestamp: Moment
    """When the job started: the end of the window."""


# --- the family --------------------------------------------------------------------------------


def _aliases(function: str) -> tuple[str, ...]:
    return (function, f"ai_pal.tasks.ari_tasks.{function}", f"backend.app.tasks.{function}")


_RETRY = RetryPolicy(max_retries=3, base_s=60.0)

aggregate_snapshots = JobType(
    kind="ari.aggregate_snapshots",
    summary="Summarise the ARI snapshots of the last hours, of one user or of all.",
    params=AggregateSnapshotsParams,
    result=AggregateSnapshotsResult,
    queue="ari_analysis",
    task_type=TaskType.ARI_SNAPSHOT,
    retry=_RETRY,
    aliases=_aliases("aggregate_ari_snapshots"),
)
analyze_trends = JobType(
    kind="ari.analyze_trends",
    summary="Find what got better or worse in a user's ARI snapshots, and whether that is more than chance.",
    params=AnalyzeTrendsParams,
    result=AnalyzeTrendsResult,
    queue="ari_analysis",
    task_type=TaskType.ARI_SNAPSHOT,
    retry=_RETRY,
    aliases=_aliases("analyze_ari_trends"),
)
analyze_active_users = JobType(
    kind="ari.analyze_active_users",
    summary="Find what got better or worse for every user who has snapshots, worst first.",
    params=AnalyzeActiveUsersParams,
    result=AnalyzeActiveUsersResult,
    queue="ari_analysis",
    task_type=TaskType.ARI_SNAPSHOT,
    retry=_RETRY,
    is_admin_only=True,
)

FAMILY = Family(
    name="ari",
    summary="Autonomy retention: how a user's own agency and skill develop.",
    job_types=(aggregate_snapshots, analyze_trends, analyze_active_users),
)
