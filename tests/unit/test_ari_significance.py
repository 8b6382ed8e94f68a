"""Mann-Kendall, Theil-Sen and Benjamini-Hochberg against known answers and an independent implementation."""

import time
from itertools import pairwise

import numpy as np
import pymannkendall
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.datasets import nile

from workers.families.ari.series import Floats
from workers.families.ari.significance import (
    SIGNIFICANCE,
    MannKendall,
    false_discovery_rates,
    least_inflation,
    mann_kendall,
    pairwise_slopes,
    theil_sen,
    variance_inflation,
)

NILE: Floats = nile.load_pandas().data["volume"].to_numpy(dtype=np.float64) / 1400

scores = st.lists(st.integers(0, 50).map(lambda score: score / 50), min_size=3, max_size=60)


def test_on_series_without_ties_it_agrees_with_pymannkendall() -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).permutation(10 + 5 * seed) / 200

        expected = pymannkendall.original_test(values)

        found, slope = kendall_and_sen(values)
        assert found.s == expected.s
        assert found.variance == pytest.approx(expected.var_s)
        assert found.p_value() == pytest.approx(expected.p, abs=1e-12)
        assert slope == pytest.approx(expected.slope)


def test_ties_lower_the_variance_as_kendall_says() -> None:
    found, _ = kendall_and_sen(np.array([1.0, 2, 2, 3, 3, 3]))

    assert found == MannKendall(s=11, variance=(6 * 5 * 17 - 2 * 1 * 9 - 3 * 2 * 11) / 18)


def test_a_constant_series_has_no_p_value() -> None:
    found, slope = kendall_and_sen(np.full(20, 0.5))

    assert found.p_value() is None
    assert slope == 0


def test_as_many_rises_as_falls_is_no_evidence_at_all() -> None:
    assert MannKendall(s=0, variance=10).p_value() == 1


def test_at_most_one_shuffled_series_in_twenty_is_called_significant() -> None:
    random = np.random.default_rng(1898)

    called = sum(p_value(random.permutation(NILE)) < SIGNIFICANCE for _ in range(200))

    assert called <= 10


def test_the_decline_of_the_nile_stays_significant_although_its_years_resemble_each_other() -> None:
    found, slope = kendall_and_sen(NILE)
    days = np.arange(100.0)

    assert variance_inflation(NILE - slope * days) == pytest.approx(2.1429, abs=1e-4)
    assert found.p_value() == pytest.approx(3.658e-5, rel=1e-3)
    assert p_value(NILE) == pytest.approx(0.0048027, rel=1e-3)


def test_nothing_left_over_has_no_autocorrelation_but_the_floor() -> None:
    assert variance_inflation(np.zeros(10)) == least_inflation(10)


def test_neighbours_that_alternate_never_make_a_series_more_significant() -> None:
    values = np.tile([0.2, 0.8], 30)

    assert variance_inflation(values) == least_inflation(60)


def test_slopes_count_days_and_not_points() -> None:
    assert theil_sen(pairwise_slopes(np.array([0.0, 1, 10]), np.array([0.0, 0.1, 1.0]))) == pytest.approx(0.1)


def test_one_outlier_in_eleven_does_not_move_the_slope() -> None:
    values = np.linspace(0.9, 0.4, 11)
    values[5] = 0.0

    assert kendall_and_sen(values)[1] == pytest.approx(-0.05)


def test_ten_years_of_days_take_less_than_a_second_of_cpu() -> None:
    values = np.random.default_rng(1).random(3650)

    started = time.process_time()
    p_value(values)

    assert time.process_time() - started < 1


def test_q_values_are_those_of_benjamini_and_hochberg() -> None:
    # The fifteen p-values of table 1 in Benjamini & Hochberg (1995): four are rejected at .05.
    published = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    published += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]

    rates = false_discovery_rates(dict(enumerate(published)))

    assert rates[0] == pytest.approx(0.0015)
    assert rates[3] == pytest.approx(0.0095 * 15 / 4)
    assert rates[6] == rates[5] == pytest.approx(0.0298 * 15 / 7)
    assert sum(rate < 0.05 for rate in rates.values()) == 4


def test_no_p_values_have_no_q_values() -> None:
    assert false_discovery_rates({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_q_value_is_never_below_its_p_value_and_keeps_the_order(p_values: list[float]) -> None:
    rates = false_discovery_rates(dict(enumerate(p_values)))

    ordered = sorted(range(len(p_values)), key=lambda at: p_values[at])
    assert list(rates) == list(range(len(p_values)))
    assert all(p_values[at] <= rates[at] * (1 + 1e-12) and rates[at] <= 1 for at in ordered)
    assert all(rates[low] <= rates[high] for low, high in pairwise(ordered))


@given(scores)
def test_a_mirrored_series_falls_exactly_as_far_as_the_series_rises(values: list[float]) -> None:
    up, slope = kendall_and_sen(np.array(values))
    down, mirrored = kendall_and_sen(1 - np.array(values))

    assert down.s == -up.s
    assert down.p_value() == up.p_value()
    assert mirrored == pytest.approx(-slope)


@given(scores)
def test_autocorrelation_only_ever_widens(values: list[float]) -> None:
    series = np.array(values)

    inflation = variance_inflation(series - kendall_and_sen(series)[1] * np.arange(float(len(series))))

    assert inflation >= least_inflation(len(series)) > 1


def kendall_and_sen(values: Floats) -> tuple[MannKendall, float]:
    """Return test and slope of one value a day."""
    slopes = pairwise_slopes(np.arange(float(len(values))), values)
    return mann_kendall(values, slopes), theil_sen(slopes)


def p_value(values: Floats) -> float:
    """Return the p-value that the family uses, of one value a day."""
    found, slope = kendall_and_sen(values)
    p = found.p_value(variance_inflation(values - slope * np.arange(float(len(values)))))
    assert p is not None
    return p
