"""Trends of one user: what is significant, where it broke, and how the result says so."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.datasets import nile

from app.jobs.ari import Direction, Metric, Trend
from workers.families.ari.breaks import find_break
from workers.families.ari.series import COLUMNS, Floats, Series, join_pages
from workers.families.ari.trends import conclude, weigh

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
NILE = nile.load_pandas().data
FLOW: Floats = NILE["volume"].to_numpy(dtype=np.float64) / NILE["volume"].max()


def test_the_nile_breaks_at_observation_28_which_is_1898_and_declines_significantly() -> None:
    trend = trend_of(FLOW)

    assert trend.significant
    assert trend.direction is Direction.DECREASING
    assert trend.slope_per_day is not None
    assert trend.slope_per_day < 0
    assert trend.change_point is not None
    assert trend.change_point.index == 28
    assert trend.change_point.at == FIRST_DAY + timedelta(days=27)
    assert NILE["year"].iloc[(trend.change_point.at - FIRST_DAY).days] == 1898
    assert trend.change_point.before == pytest.approx(FLOW[:28].mean())
    assert trend.change_point.after == pytest.approx(FLOW[28:].mean())


def test_nine_metrics_of_noise_beside_it_leave_the_nile_significant() -> None:
    random = np.random.default_rng(3)

    trends = trends_of({metric: random.random(100) for metric in Metric} | {Metric.DECISION_QUALITY: FLOW})

    assert [metric for metric, trend in trends.items() if trend.significant] == [Metric.DECISION_QUALITY]


def test_nine_days_are_never_significant_and_ten_can_be() -> None:
    nine, ten = trend_of(np.linspace(0.9, 0.1, 9)), trend_of(np.linspace(0.9, 0.1, 10))

    assert (nine.p_value, nine.significant, nine.days) == (None, False, 9)
    assert ten.p_value == pytest.approx(0.00456, abs=1e-5)
    assert ten.significant


def test_a_thousand_snapshots_of_one_day_are_one_point() -> None:
    hours = np.linspace(0, 0.99, 1000)

    trend = trend_of(np.linspace(0.9, 0.1, 1000), days=hours)

    assert (trend.data_points, trend.days) == (1000, 1)
    assert (trend.slope_per_day, trend.p_value, trend.change_point) == (None, None, None)


def test_a_day_counts_with_the_mean_of_its_snapshots() -> None:
    daily = series({Metric.ENGAGEMENT: np.array([0.1, 0.3, 0.8])}, days=np.array([0.0, 0.9999, 1.0])).daily()

    assert len(daily) == 2
    assert daily.column(Metric.ENGAGEMENT).tolist() == [0.2, 0.8]
    assert daily.moment(1) == FIRST_DAY + timedelta(days=1)


def test_equal_days_stay_equal_however_many_snapshots_they_have() -> None:
    values = np.full(3 + 7, 0.1)

    daily = series({Metric.ENGAGEMENT: values}, days=np.array([0.0, 0.1, 0.2, *np.linspace(1, 1.9, 7)])).daily()

    assert np.ptp(daily.column(Metric.ENGAGEMENT)) == 0


def test_below_ten_days_the_direction_is_that_of_the_plain_change() -> None:
    assert trend_of(np.array([0.9, 0.7])).direction is Direction.DECREASING
    assert trend_of(np.array([0.7, 0.9])).direction is Direction.INCREASING
    assert trend_of(np.array([0.9, 0.85])).direction is Direction.STABLE


def test_from_ten_days_on_chance_is_stable_whatever_its_ends_are() -> None:
    values = np.array([0.9, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.2])

    trend = trend_of(values)

    assert trend.change_percent == pytest.approx(-77.777777778)
    assert trend.direction is Direction.STABLE


def test_a_constant_metric_has_no_p_value_and_takes_no_part_in_the_correction() -> None:
    trends = trends_of({Metric.DECISION_QUALITY: FLOW})

    assert trends[Metric.ENGAGEMENT].p_value is None
    assert trends[Metric.ENGAGEMENT].direction is Direction.STABLE
    assert trends[Metric.DECISION_QUALITY].q_value == trends[Metric.DECISION_QUALITY].p_value


def test_a_steady_decline_has_no_break() -> None:
    noise = np.random.default_rng(7).normal(scale=0.02, size=60)

    assert find_break(np.arange(60.0), np.linspace(0.9, 0.3, 60) + noise) is None


def test_noise_around_one_level_has_no_break() -> None:
    found = [
        find_break(np.arange(100.0), np.random.default_rng(seed).normal(0.5, 0.1, size=100)) for seed in range(100)
    ]

    assert sum(one is not None for one in found) <= 5


@given(
    at=st.integers(5, 35),
    step=st.floats(0.2, 0.5).flatmap(lambda size: st.sampled_from([size, -size])),
    seed=st.integers(0, 1000),
)
def test_a_clear_step_is_found_where_it_is(at: int, step: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.5, 0.01, size=40)
    values[at:] += step

    found = find_break(np.arange(40.0), values)

    assert found is not None
    assert found.index == at
    assert found.after - found.before == pytest.approx(step, abs=0.03)


def test_a_step_without_any_noise_is_found_too() -> None:
    found = find_break(np.arange(12.0), np.repeat([0.8, 0.4], 6))

    assert found is not None
    assert found.index == 6
    assert found.before == pytest.approx(0.8)
    assert found.after == pytest.approx(0.4)


def test_no_pages_are_an_empty_series() -> None:
    assert len(join_pages([]).daily()) == 0


def series(columns: dict[Metric, Floats], days: Floats | None = None) -> Series:
    """Return a series of one snapshot a day, with .5 for every metric that is not given."""
    count = len(next(iter(columns.values())))
    scores = np.full((count, len(COLUMNS)), 0.5)
    for metric, values in columns.items():
        scores[:, COLUMNS.index(metric)] = values
    since = FIRST_DAY.timestamp() / 86_400
    return Series(days=since + (np.arange(float(count)) if days is None else days), scores=scores)


def trends_of(columns: dict[Metric, Floats], days: Floats | None = None) -> dict[Metric, Trend]:
    """Return all nine trends."""
    snapshots = series(columns, days)
    return conclude(snapshots, {metric: weigh(snapshots.daily(), metric) for metric in Metric}, 10)


def trend_of(values: Floats, days: Floats | None = None) -> Trend:
    """Return the trend of decision quality, all else being constant."""
    return trends_of({Metric.DECISION_QUALITY: values}, days)[Metric.DECISION_QUALITY]


def test_an_abrupt_drop_is_significant_and_does_not_pass_for_autocorrelation() -> None:
    chance = np.random.default_rng(3)

    trend = trend_of(np.repeat([0.3, 0.0], [35, 25]) + 0.02 * chance.standard_normal(60))

    assert trend.change_point is not None
    assert trend.change_point.index == 35
    assert trend.significant
    assert trend.direction is Direction.DECREASING
