"""What a user's daily means say about one metric, and how that reads in the result. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.jobs.ari import ChangePoint, Direction, Metric, Trend
from workers.families.ari.breaks import Break, find_break
from workers.families.ari.rules import change_percent, has_changed
from workers.families.ari.series import Series
from workers.families.ari.significance import (
    MIN_DAYS,
    SIGNIFICANCE,
    false_discovery_rates,
    mann_kendall,
    pairwise_slopes,
    theil_sen,
    variance_inflation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The Theil-Sen line through the daily means."""

    slope: float  # per day
    first: float  # its value on the first day
    last: float  # its value on the last day


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the daily means of one metric say, before other metrics are taken into account."""

    days: int
    line: Line | None = None  # None below two days
    rise: float = 0.0  # S of Mann-Kendall: its sign says whether the days rise or fall
    p_value: float | None = None  # None below ten days, or when all are equal
    change_point: ChangePoint | None = None


def weigh(daily: Series, metric: Metric) -> Evidence:
    """Test, fit and cut the daily means of one metric. Takes 0.15 s for ten years; meant for a thread."""
    days, values = daily.days, daily.column(metric)
    if len(daily) < 2:
        return Evidence(days=len(daily))
    slopes = pairwise_slopes(days, values)
    test = mann_kendall(values, slopes)
    slope = theil_sen(slopes)
    first = float(np.median(values - slope * (days - days[0])))  # the intercept of Conover (1980)
    line = Line(slope=slope, first=first, last=first + slope * float(days[-1] - days[0]))
    if len(daily) < MIN_DAYS:
        return Evidence(days=len(daily), line=line, rise=test.s)
    step = find_break(days, values)
    change = slope * (days - days[0]) if step is None else np.repeat([step.before, step.after], step.lengths(len(days)))
    return Evidence(
        days=len(daily),
        line=line,
        rise=test.s,
        p_value=test.p_value(variance_inflation(values - change)),
        change_point=None if step is None else _change_point(daily, step),
    )


def _change_point(daily: Series, step: Break) -> ChangePoint:
    return ChangePoint(at=daily.moment(step.index - 1), index=step.index, before=step.before, after=step.after)


def conclude(series: Series, evidence: Mapping[Metric, Evidence], threshold_percent: float) -> dict[Metric, Trend]:
    """Return the trend of each metric; the q-values take all metrics of ``evidence`` into account."""
    p_values = {metric: weighed.p_value for metric, weighed in evidence.items() if weighed.p_value is not None}
    q_values = false_discovery_rates(p_values)
    return {
        metric: _trend(series, metric, weighed, q_values.get(metric), threshold_percent)
        for metric, weighed in evidence.items()
    }


def _trend(series: Series, metric: Metric, weighed: Evidence, q_value: float | None, threshold_percent: float) -> Trend:
    values = series.column(metric)
    first, last = float(values[0]), float(values[-1])
    significant = q_value is not None and q_value < SIGNIFICANCE
    if weighed.days >= MIN_DAYS:
        rise = weighed.rise if significant else 0.0
    else:
        rise = last - first if has_changed(first, last, threshold_percent) else 0.0
    return Trend(
        first_value=first,
        last_value=last,
        change_percent=change_percent(first, last),
        data_points=len(series),
        days=weighed.days,
        slope_per_day=weighed.line.slope if weighed.line else None,
        p_value=weighed.p_value,
        q_value=q_value,
        significant=significant,
        change_point=weighed.change_point,
        direction=_direction(rise),
    )


def _direction(rise: float) -> Direction:
    if rise == 0:
        return Direction.STABLE
    return Direction.INCREASING if rise > 0 else Direction.DECREASING
