"""The sample data are what their scenarios say, and the same every time."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from statistics import fmean

import pytest

from app.demo.samples import (
    DAILY_NOISE,
    DAYS,
    LEVELS,
    SCENARIOS,
    SIGNED,
    SNAPSHOT_NOISE,
    Scenario,
    sample_snapshots,
    to_ndjson,
)
from app.demo.workspace import sample_workspace
from app.jobs.ari import Metric
from app.records.ari_snapshots import ARI_SNAPSHOTS, AriSnapshot
from app.records.ingest import parse_records
from app.records.record import load_record_types

LAST_DAY = date(2026, 3, 1)
SEEDS = range(5)


def of(scenario: Scenario, seed: int = 1, last_day: date = LAST_DAY) -> list[AriSnapshot]:
    return [found for found in sample_snapshots(seed=seed, last_day=last_day) if found.user_id == scenario.user_id]


def scenario_of(user_id: str) -> Scenario:
    (found,) = [scenario for scenario in SCENARIOS if scenario.user_id == user_id]
    return found


def mean(snapshots: Sequence[AriSnapshot], metric: Metric, days: range) -> float:
    """Return the mean of a metric over some days, counted from 0."""
    first_day = LAST_DAY - timedelta(days=DAYS - 1)
    return fmean(getattr(found, metric) for found in snapshots if (found.timestamp.date() - first_day).days in days)


def test_a_seed_and_a_last_day_always_give_the_same_snapshots() -> None:
    assert list(sample_snapshots(seed=3, last_day=LAST_DAY)) == list(sample_snapshots(seed=3, last_day=LAST_DAY))


def test_another_seed_gives_other_values_under_the_same_ids() -> None:
    ones, others = (list(sample_snapshots(seed=seed, last_day=LAST_DAY)) for seed in (1, 2))

    assert [one.snapshot_id for one in ones] == [other.snapshot_id for other in others]
    assert all(one.engagement != other.engagement for one, other in zip(ones[:20], others[:20], strict=True))


def test_another_last_day_moves_the_same_values() -> None:
    ones, others = (list(sample_snapshots(seed=1, last_day=LAST_DAY + timedelta(days=later))) for later in (0, 400))

    assert [one.timestamp + timedelta(days=400) for one in ones] == [other.timestamp for other in others]
    assert [one.decision_quality for one in ones] == [other.decision_quality for other in others]


def test_ids_are_unique() -> None:
    counts = Counter(found.snapshot_id for found in sample_snapshots(seed=1, last_day=LAST_DAY))

    assert set(counts.values()) == {1}


def test_every_day_up_to_the_last_has_one_to_three_snapshots_of_each_user() -> None:
    days = [LAST_DAY - timedelta(days=back) for back in range(DAYS)]

    for scenario in SCENARIOS:
        if scenario.snapshots is None:
            counts = Counter(found.timestamp.date() for found in of(scenario))
            assert sorted(counts, reverse=True) == days
            assert set(counts.values()) <= {1, 2, 3}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_is_inside_the_range_of_its_metric(seed: int) -> None:
    for found in sample_snapshots(seed=seed, last_day=LAST_DAY):
        for metric in Metric:
            assert (-1 if metric in SIGNED else 0) <= getattr(found, metric) <= 1


def test_values_beyond_the_range_are_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEVELS, Metric.ENGAGEMENT, 1.2)
    monkeypatch.setitem(LEVELS, Metric.DELTA_AGENCY, -1.2)

    snapshots = list(sample_snapshots(seed=1, last_day=LAST_DAY))

    assert {found.engagement for found in snapshots} == {1.0}
    assert {found.delta_agency for found in snapshots} == {-1.0}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.snapshots is None], ids=lambda one: one.user_id)
def test_the_values_lie_around_the_level_that_the_scenario_says(scenario: Scenario, seed: int) -> None:
    snapshots = of(scenario, seed)

    for metric in Metric:
        for days in (range(20), range(20, 40), range(40, DAYS)):
            truth = fmean(scenario.level(metric, day) for day in days)
            # Four standard errors of a mean over 20 days that lean on one another, plus the days' unequal weights.
            allowed = 4 * (DAILY_NOISE * (1.86 / 20) ** 0.5 + SNAPSHOT_NOISE / 20**0.5) + 0.002
            assert mean(snapshots, metric, days) == pytest.approx(truth, abs=allowed)


def test_the_steady_user_has_no_change_at_all() -> None:
    scenario = scenario_of("sample-ada")

    assert {scenario.level(metric, day) for metric in Metric for day in range(DAYS)} == set(LEVELS.values())


@pytest.mark.parametrize(
    ("user_id", "metric", "change"),
    [
        ("sample-ben", Metric.DECISION_QUALITY, -0.16),
        ("sample-dev", Metric.AI_RELIANCE, +0.24),
        ("sample-eve", Metric.SKILL_DEVELOPMENT, +0.16),
        ("sample-eve", Metric.USER_CONFIDENCE, +0.12),
    ],
)
def test_a_drift_shows_between_the_first_and_the_last_third(user_id: str, metric: Metric, change: float) -> None:
    snapshots = of(scenario_of(user_id))

    difference = mean(snapshots, metric, range(40, 60)) - mean(snapshots, metric, range(20))

    assert difference == pytest.approx(change, abs=0.03)


def test_the_drop_is_there_from_one_day_to_the_next() -> None:
    scenario, metric = scenario_of("sample-cho"), Metric.SKILL_DEVELOPMENT
    (drop,) = scenario.changes
    snapshots = of(scenario)

    assert mean(snapshots, metric, range(drop.at)) == pytest.approx(LEVELS[metric], abs=0.02)
    assert mean(snapshots, metric, range(drop.at, DAYS)) == pytest.approx(LEVELS[metric] + drop.step, abs=0.02)
    assert scenario.level(metric, drop.at) - scenario.level(metric, drop.at - 1) == pytest.approx(drop.step)


def test_the_user_with_too_little_data_has_the_newest_snapshot_alone() -> None:
    (only,) = of(scenario_of("sample-fin"))

    assert only.timestamp.date() == LAST_DAY


def test_every_snapshot_says_that_it_is_sample_data() -> None:
    for found in sample_snapshots(seed=1, last_day=LAST_DAY):
        assert found.user_id.startswith("sample-")
        assert found.metadata is not None
        assert found.metadata["source"] == "sample data"


def test_the_lines_are_what_the_records_route_takes() -> None:
    snapshots = list(sample_snapshots(seed=1, last_day=LAST_DAY))

    assert parse_records(ARI_SNAPSHOTS, to_ndjson(snapshots)) == snapshots


def test_the_rest_of_the_workspace_is_as_repeatable_and_every_record_of_it_can_be_stored() -> None:
    ones, same, others = (sample_workspace(seed=seed, last_day=LAST_DAY) for seed in (3, 3, 4))
    kinds = load_record_types()

    assert ones == same
    assert ones["training-examples"] != others["training-examples"]
    for kind, records in ones.items():
        assert parse_records(kinds[kind], to_ndjson(records), content_type="application/x-ndjson") == list(records)
