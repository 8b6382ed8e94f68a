"""The plain rules: last against first, single snapshots, thirds."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.ari import AgencyTendency, AlertKind, DependencyTendency, Metric, Severity, SkillTendency, Tendencies
from workers.families.ari.rules import (
    change_alert,
    change_percent,
    find_tendencies,
    snapshot_alerts,
    tendency_alerts,
    thirds,
)
from workers.families.ari.series import BHIR, COLUMNS, Series

STEPS = range(6)


def test_from_90_to_70_is_a_critical_decline_of_22_percent() -> None:
    alert = change_alert(Metric.AUTONOMY_RETENTION, 0.9, 0.7, 10)

    assert change_percent(0.9, 0.7) == pytest.approx(-22.2222, abs=1e-4)
    assert alert is not None
    assert alert.severity is Severity.CRITICAL
    assert alert.kind is AlertKind.CHANGE
    assert alert.decline_percent == pytest.approx(22.2222, abs=1e-4)
    assert alert.message == "autonomy_retention declined 22.2%"


@pytest.mark.parametrize("first", [1.0, 0.5, 0.9, 0.35, 0.7])
def test_a_fall_of_exactly_twenty_percent_is_critical(first: float) -> None:
    alert = change_alert(Metric.ENGAGEMENT, first, first * 0.8, 10)

    assert alert is not None
    assert alert.severity is Severity.CRITICAL


def test_a_fall_of_a_little_less_is_a_warning() -> None:
    alert = change_alert(Metric.ENGAGEMENT, 1.0, 0.8001, 10)

    assert alert is not None
    assert alert.severity is Severity.WARNING


def test_a_fall_of_exactly_the_threshold_raises_nothing() -> None:
    assert change_alert(Metric.ENGAGEMENT, 0.9, 0.81, 10) is None
    assert change_alert(Metric.ENGAGEMENT, 0.9, 0.8099, 10) is not None


def test_a_rise_raises_nothing_except_for_reliance() -> None:
    assert change_alert(Metric.ENGAGEMENT, 0.5, 0.9, 10) is None

    alert = change_alert(Metric.AI_RELIANCE, 0.5, 0.6, 10)

    assert alert is not None
    assert alert.severity is Severity.CRITICAL
    assert alert.message == "ai_reliance rose 20.0%"
    assert change_alert(Metric.AI_RELIANCE, 0.6, 0.5, 10) is None


def test_near_zero_a_fall_is_measured_in_points_of_the_scale() -> None:
    slight, deep = change_alert(Metric.DELTA_AGENCY, 0.01, -0.01, 10), change_alert(Metric.DELTA_AGENCY, 0.0, -0.2, 10)

    assert slight is None
    assert deep is not None
    assert deep.severity is Severity.CRITICAL
    assert deep.kind is AlertKind.ABSOLUTE_CHANGE
    assert deep.decline_percent is None
    assert deep.message == "delta_agency declined 20.0 points"


def test_from_zero_there_is_no_percentage() -> None:
    assert change_percent(0.0, 0.5) is None
    assert change_percent(5e-324, 0.5) is None


def test_a_negative_value_that_falls_further_is_a_decline() -> None:
    assert change_percent(-0.2, -0.3) == -50
    assert change_alert(Metric.DELTA_AGENCY, -0.2, -0.3, 10) is not None


@given(first=st.floats(-1, 1), last=st.floats(-1, 1), threshold=st.floats(0.1, 100))
def test_of_a_change_and_its_opposite_at_most_one_is_for_the_worse(first: float, last: float, threshold: float) -> None:
    falls = change_alert(Metric.DELTA_AGENCY, first, last, threshold)
    rises = change_alert(Metric.AI_RELIANCE, first, last, threshold)

    assert falls is None or rises is None


def test_each_limit_on_single_snapshots_raises_one_alert() -> None:
    broken = {Metric.DELTA_AGENCY: -0.11, BHIR: 0.79, Metric.SKILL_DEVELOPMENT: -0.16, Metric.AI_RELIANCE: 0.91}

    alerts = snapshot_alerts(series({name: [value] for name, value in broken.items()}))

    assert [alert.metric for alert in alerts] == list(broken)
    assert {alert.kind for alert in alerts} == {AlertKind.SNAPSHOT}
    assert alerts[0].message == "delta_agency was below -0.1 in 1 of 1 snapshots, at worst -0.11 on 2026-01-01"


def test_a_value_on_the_limit_raises_nothing() -> None:
    at_limits = {Metric.DELTA_AGENCY: -0.1, BHIR: 0.8, Metric.SKILL_DEVELOPMENT: -0.15, Metric.AI_RELIANCE: 0.9}

    assert snapshot_alerts(series({name: [value] for name, value in at_limits.items()})) == []


def test_a_limit_is_critical_while_the_newest_snapshot_is_beyond_it() -> None:
    over, still = series({Metric.AI_RELIANCE: [0.95, 0.5]}), series({Metric.AI_RELIANCE: [0.5, 0.95]})

    assert [alert.severity for alert in snapshot_alerts(over)] == [Severity.WARNING]
    assert [alert.severity for alert in snapshot_alerts(still)] == [Severity.CRITICAL]


def test_an_unmeasured_bhir_breaks_no_limit() -> None:
    [alert] = snapshot_alerts(series({BHIR: [0.5, 1.2, float("nan")]}))

    assert alert.severity is Severity.WARNING
    assert "in 1 of 2 snapshots" in alert.message


def test_the_thirds_of_a_user_who_leans_on_the_ai_more_and_more() -> None:
    found = series(
        {
            Metric.DELTA_AGENCY: [0.2 - 0.06 * step for step in STEPS],
            Metric.SKILL_DEVELOPMENT: [0.1 - 0.05 * step for step in STEPS],
            Metric.AI_RELIANCE: [0.3 + 0.1 * step for step in STEPS],
        }
    )

    assert find_tendencies(found) == Tendencies(
        agency=AgencyTendency.DECREASING, skill=SkillTendency.DECLINING, dependency=DependencyTendency.INCREASING
    )
    assert [(alert.metric, alert.severity) for alert in tendency_alerts(found)] == [
        (Metric.DELTA_AGENCY, Severity.WARNING),
        (Metric.SKILL_DEVELOPMENT, Severity.WARNING),
        (Metric.AI_RELIANCE, Severity.WARNING),
    ]


def test_a_recent_mean_below_minus_a_fifth_is_critical_even_when_it_is_rising() -> None:
    found = series({Metric.DELTA_AGENCY: [-0.9, -0.5, -0.3]})

    assert tendencies_of(found).agency is AgencyTendency.CRITICAL
    assert [alert.severity for alert in tendency_alerts(found)] == [Severity.CRITICAL]


def test_what_gets_better_is_said_and_raises_nothing() -> None:
    better: dict[str, list[float]] = {Metric.DELTA_AGENCY: [0.0, 0.1, 0.2], Metric.SKILL_DEVELOPMENT: [0.0, 0.1, 0.2]}
    found = series({**better, Metric.AI_RELIANCE: [0.6, 0.5, 0.4]})

    assert tendencies_of(found) == Tendencies(
        agency=AgencyTendency.INCREASING, skill=SkillTendency.IMPROVING, dependency=DependencyTendency.DECREASING
    )
    assert tendency_alerts(found) == []


def test_a_difference_of_exactly_the_limit_is_stable() -> None:
    worse: dict[str, list[float]] = {Metric.DELTA_AGENCY: [0.3, 0.2, 0.2], Metric.SKILL_DEVELOPMENT: [0.3, 0.2, 0.2]}
    found = series({**worse, Metric.AI_RELIANCE: [0.3, 0.4, 0.45]})

    assert tendencies_of(found) == Tendencies(
        agency=AgencyTendency.STABLE, skill=SkillTendency.STABLE, dependency=DependencyTendency.STABLE
    )


def test_the_older_third_is_rounded_down_and_the_recent_one_up() -> None:
    found = thirds(series({Metric.ENGAGEMENT: [0.1, 0.5, 0.5, 0.8, 0.9]}), Metric.ENGAGEMENT)

    assert found is not None
    assert found.older == pytest.approx(0.1)
    assert found.recent == pytest.approx(0.85)


def test_two_snapshots_have_no_thirds() -> None:
    found = series({Metric.ENGAGEMENT: [0.9, 0.1]})

    assert find_tendencies(found) is None
    assert tendency_alerts(found) == []


def series(columns: dict[str, list[float]]) -> Series:
    """Return a series of one snapshot a day, unremarkable where nothing is given."""
    count = len(next(iter(columns.values())))
    scores = np.full((count, len(COLUMNS)), 0.5)
    scores[:, COLUMNS.index(BHIR)] = 1.5
    for name, values in columns.items():
        scores[:, COLUMNS.index(name)] = values
    since = datetime(2026, 1, 1, tzinfo=UTC).timestamp() / 86_400
    return Series(days=since + np.arange(float(count)), scores=scores)


def tendencies_of(found: Series) -> Tendencies:
    """Return the tendencies of a series that has some."""
    tendencies = find_tendencies(found)
    assert tendencies is not None
    return tendencies
