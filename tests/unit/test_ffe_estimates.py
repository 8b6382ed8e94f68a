"""What history teaches about durations, and what simulation says of their sum."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.records.ffe_blocks import Experience
from workers.families.ffe.estimates import MAX_FACTOR, MIN_FACTOR, PRIOR_SPREAD, Calibration, calibrate, simulate


def took(ratio: float, count: int = 1) -> list[Experience]:
    return [Experience(expected_minutes=60, actual_minutes=60 * ratio)] * count


def test_without_history_the_prior_stands() -> None:
    assert calibrate([]) == Calibration(blocks=0, factor=1, spread=PRIOR_SPREAD)


def test_five_blocks_that_took_twice_as_long_weigh_as_much_as_the_prior() -> None:
    found = calibrate(took(2, 5))

    assert found.factor == pytest.approx(math.sqrt(2))
    assert found.spread == pytest.approx(PRIOR_SPREAD / math.sqrt(2))


def test_much_history_outweighs_the_prior() -> None:
    assert calibrate(took(2, 500)).factor == pytest.approx(2, rel=0.01)


def test_half_and_double_cancel_out_and_widen_the_spread() -> None:
    found = calibrate(took(2, 10) + took(0.5, 10))

    assert found.factor == pytest.approx(1)
    assert found.spread > 2 * PRIOR_SPREAD


def test_one_forgotten_clock_counts_as_four_times_at_most() -> None:
    assert calibrate(took(1000)).factor == pytest.approx(4 ** (1 / 6))


@given(st.lists(st.floats(0.001, 1000), max_size=30), st.floats(1, 10))
def test_slower_blocks_never_make_a_smaller_factor(ratios: list[float], slower: float) -> None:
    before = calibrate([one for ratio in ratios for one in took(ratio)]).factor
    after = calibrate([one for ratio in ratios for one in took(ratio * slower)]).factor

    assert MIN_FACTOR <= before <= after + 1e-12
    assert after <= MAX_FACTOR


def test_the_mean_is_that_of_pert() -> None:
    # 60 minutes, ends at ±2 spreads of .25: (o + 4m + p)/6, and the log-normal mean of the factor's uncertainty.
    pert = 60 * (math.exp(-0.5) + 4 + math.exp(0.5)) / 6

    found = simulate("goal", [60], Calibration())

    assert found.expected_minutes == pytest.approx(pert * math.exp(0.25**2 / 5 / 2), rel=0.01)


def test_quantiles_rise_and_the_same_goal_gives_the_same_ones() -> None:
    first = simulate("goal", [60, 30, 90], Calibration())

    assert first == simulate("goal", [60, 30, 90], Calibration())
    assert first != simulate("other", [60, 30, 90], Calibration())
    assert 0 < first.p50_minutes < first.p80_minutes < first.p95_minutes


def test_many_blocks_keep_the_uncertainty_of_the_factor_that_they_share() -> None:
    found = simulate("goal", [60] * 200, Calibration())

    assert found.p95_minutes / found.p50_minutes == pytest.approx(math.exp(1.645 * 0.25 / math.sqrt(5)), rel=0.02)


def test_more_spread_makes_worse_bad_cases() -> None:
    narrow, wide = (simulate("goal", [60] * 5, Calibration(spread=spread)) for spread in (0.1, 0.5))

    assert wide.p95_minutes > narrow.p95_minutes


def test_nothing_to_do_takes_no_time() -> None:
    found = simulate("goal", [], Calibration())

    assert (found.expected_minutes, found.p50_minutes, found.p95_minutes) == (0, 0, 0)
