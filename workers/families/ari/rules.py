"""The rules that need no statistics: last against first, single snapshots, recent third against older third. Pure.

Differences are rounded to nine decimals before they meet a limit, so that a fall from .5 to .4 is one of
exactly 20 %, as it is on paper.
"""

import math
from dataclasses import dataclass

import numpy as np

from app.jobs.ari import (
    AgencyTendency,
    AlertKind,
    DependencyTendency,
    Metric,
    Severity,
    SkillTendency,
    Tendencies,
    TrendAlert,
)
from workers.families.ari.series import BHIR, Series

CRITICAL_PERCENT = 20.0
NEAR_ZERO = 0.05  # first values below this are no base for percents; the scale itself is, 1 being 100 points

_DECIMALS = 9


def change_percent(first: float, last: float) -> float | None:
    """Return (last − first)/|first|·100; None when the first is 0, or so small that the quotient is not finite."""
    if first == 0:
        return None
    percent = (last - first) / abs(first) * 100
    return round(percent, _DECIMALS) if math.isfinite(percent) else None


def worsening(metric: Metric, first: float, last: float) -> float:
    """Return by how much a metric got worse, on the scale of :func:`relative_to`; negative when it got better.

    More is worse for ``ai_reliance`` alone.
    """
    return relative_to(first, last - first if metric is Metric.AI_RELIANCE else first - last)


def has_changed(first: float, last: float, threshold_percent: float) -> bool:
    """Whether a metric went up or down by more than the threshold, on the scale of :func:`relative_to`."""
    return abs(relative_to(first, last - first)) > threshold_percent


def relative_to(first: float, difference: float) -> float:
    """Return a difference in percent of the first value, or in points of the scale when that is near zero."""
    return round(difference / (1.0 if is_near_zero(first) else abs(first)) * 100, _DECIMALS)


def is_near_zero(first: float) -> bool:
    """Whether percents of this value would mean nothing."""
    return abs(first) < NEAR_ZERO


def severity_of(worse: float) -> Severity:
    """Return critical from 20 on, that included."""
    return Severity.CRITICAL if worse >= CRITICAL_PERCENT else Severity.WARNING


def change_alert(metric: Metric, first: float, last: float, threshold_percent: float) -> TrendAlert | None:
    """Return an alert when the last value is worse than the first by more than the threshold."""
    worse = worsening(metric, first, last)
    if worse <= threshold_percent:
        return None
    verb = "rose" if metric is Metric.AI_RELIANCE else "declined"
    points = is_near_zero(first)
    return TrendAlert(
        metric=metric,
        severity=severity_of(worse),
        decline_percent=None if points else worse,
        message=f"{metric} {verb} {worse:.1f}{' points' if points else '%'}",
        kind=AlertKind.ABSOLUTE_CHANGE if points else AlertKind.CHANGE,
    )


# --- single snapshots --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRule:
    """A limit that no single snapshot should be beyond."""

    column: str
    limit: float
    is_ceiling: bool = False


SNAPSHOT_RULES = (
    SnapshotRule(column=Metric.DELTA_AGENCY, limit=-0.1),
    SnapshotRule(column=BHIR, limit=0.8),
    SnapshotRule(column=Metric.SKILL_DEVELOPMENT, limit=-0.15),
    SnapshotRule(column=Metric.AI_RELIANCE, limit=0.9, is_ceiling=True),
)


def snapshot_alerts(series: Series) -> list[TrendAlert]:
    """Return one alert for each rule that a snapshot breaks; critical when the newest one measured does."""
    return [alert for rule in SNAPSHOT_RULES if (alert := _snapshot_alert(series, rule)) is not None]


def _snapshot_alert(series: Series, rule: SnapshotRule) -> TrendAlert | None:
    values = series.column(rule.column)
    measured = np.flatnonzero(~np.isnan(values))
    beyond = values[measured] > rule.limit if rule.is_ceiling else values[measured] < rule.limit
    if not beyond.any():
        return None
    worst = measured[values[measured].argmax() if rule.is_ceiling else values[measured].argmin()]
    return TrendAlert(
        metric="bhir" if rule.column == BHIR else Metric(rule.column),
        severity=Severity.CRITICAL if beyond[-1] else Severity.WARNING,
        decline_percent=None,
        message=f"{rule.column} was {'above' if rule.is_ceiling else 'below'} {rule.limit:g} in {int(beyond.sum())} of "
        f"{len(measured)} snapshots, at worst {values[worst]:.3g} on {series.moment(int(worst)):%Y-%m-%d}",
        kind=AlertKind.SNAPSHOT,
    )


# --- thirds ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Thirds:
    """The mean of a metric over the older and over the recent third of the snapshots."""

    older: float
    recent: float

    @property
    def difference(self) -> float:
        """By how much the recent third is higher."""
        return round(self.recent - self.older, _DECIMALS)


def thirds(series: Series, metric: Metric) -> Thirds | None:
    """Return the means of the first ⌊n/3⌋ and of the last ⌈n/3⌉ snapshots; None for fewer than three."""
    values = series.column(metric)
    if len(values) < 3:
        return None
    older, recent = values[: len(values) // 3], values[len(values) - math.ceil(len(values) / 3) :]
    return Thirds(older=float(older.mean()), recent=float(recent.mean()))


def find_tendencies(series: Series) -> Tendencies | None:
    """Compare the thirds of agency, skill and dependency; None for fewer than three snapshots."""
    agency, skill = thirds(series, Metric.DELTA_AGENCY), thirds(series, Metric.SKILL_DEVELOPMENT)
    dependency = thirds(series, Metric.AI_RELIANCE)
    if agency is None or skill is None or dependency is None:
        return None
    return Tendencies(
        agency=AgencyTendency.CRITICAL
        if round(agency.recent, _DECIMALS) < -0.2
        else AgencyTendency(_side(agency, 0.1, down="decreasing", up="increasing")),
        skill=SkillTendency(_side(skill, 0.1, down="declining", up="improving")),
        dependency=DependencyTendency(_side(dependency, 0.15, down="decreasing", up="increasing")),
    )


def _side(means: Thirds, limit: float, *, down: str, up: str) -> str:
    if means.difference < -limit:
        return down
    return up if means.difference > limit else "stable"


def tendency_alerts(series: Series) -> list[TrendAlert]:
    """Return an alert for each tendency that is for the worse; critical where agency is."""
    found = find_tendencies(series)
    if found is None:
        return []
    is_critical = found.agency is AgencyTendency.CRITICAL
    worse = {
        Metric.DELTA_AGENCY: is_critical or found.agency is AgencyTendency.DECREASING,
        Metric.SKILL_DEVELOPMENT: found.skill is SkillTendency.DECLINING,
        Metric.AI_RELIANCE: found.dependency is DependencyTendency.INCREASING,
    }
    return [
        _tendency_alert(metric, means, is_critical=is_critical and metric is Metric.DELTA_AGENCY)
        for metric, is_worse in worse.items()
        if is_worse and (means := thirds(series, metric)) is not None
    ]


def _tendency_alert(metric: Metric, means: Thirds, *, is_critical: bool) -> TrendAlert:
    return TrendAlert(
        metric=metric,
        severity=Severity.CRITICAL if is_critical else Severity.WARNING,
        decline_percent=None,
        message=f"{metric} averages {means.recent:.3g} over the recent third of the snapshots, "
        f"against {means.older:.3g} over the older third",
        kind=AlertKind.THIRDS,
    )
