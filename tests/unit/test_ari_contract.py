"""The contract of the ARI family: names, queue and what its params refuse."""

import pytest
from pydantic import ValidationError

from app.jobs import ari
from app.jobs.ari import AggregateSnapshotsParams, AnalyzeTrendsParams, Metric
from app.jobs.catalogue import Catalogue
from app.records.ari_snapshots import ARI_SNAPSHOTS


@pytest.mark.parametrize("prefix", ["", "ai_pal.tasks.ari_tasks.", "backend.app.tasks."])
def test_the_names_of_older_clients_mean_the_same_jobs(prefix: str) -> None:
    catalogue = Catalogue([ari.FAMILY])

    assert catalogue.find(f"{prefix}aggregate_ari_snapshots").kind == "ari.aggregate_snapshots"
    assert catalogue.find(f"{prefix}analyze_ari_trends").kind == "ari.analyze_trends"


def test_both_jobs_have_the_queue_and_the_limits_that_clients_rely_on() -> None:
    for job_type in ari.FAMILY.job_types:
        assert job_type.queue == "ari_analysis"
        assert (job_type.retry.max_retries, job_type.retry.base_s) == (3, 60)
        assert (job_type.limits.hard_s, job_type.limits.soft_s) == (1800, 1500)


def test_a_summary_may_be_about_all_users_and_an_analysis_is_about_one() -> None:
    assert ari.aggregate_snapshots.subject == "optional"
    assert ari.analyze_trends.subject == "required"


@pytest.mark.parametrize("hours", [0, 8761, 1.5, True, "24"])
def test_a_window_outside_one_hour_to_a_year_is_refused(hours: object) -> None:
    with pytest.raises(ValidationError):
        AggregateSnapshotsParams.model_validate({"time_window_hours": hours})


@pytest.mark.parametrize(
    "given",
    [{}, {"user_id": ""}, {"lookback_days": 3651}, {"threshold_percent": 0}, {"threshold_percent": 100.1}, {"days": 3}],
)
def test_an_analysis_refuses_what_makes_no_sense(given: dict[str, object]) -> None:
    user = {} if given == {} else {"user_id": "u"}

    with pytest.raises(ValidationError):
        AnalyzeTrendsParams.model_validate(user | given)


def test_every_metric_is_a_required_field_of_a_snapshot() -> None:
    fields = ARI_SNAPSHOTS.model.model_fields

    assert len(Metric) == 9
    assert all(fields[metric].is_required() for metric in Metric)


@pytest.mark.parametrize(
    ("field", "value", "is_good"),
    [
        ("delta_agency", -1, True),
        ("skill_development", -1, True),
        ("delta_agency", -1.01, False),
        ("engagement", -0.01, False),
        ("engagement", 1.01, False),
        ("engagement", True, False),
        ("bhir", -0.1, False),
        ("bhir", 7, True),
        ("bhir", None, True),
        ("mood", 1, False),
    ],
)
def test_a_snapshot_holds_scores_in_their_ranges_and_nothing_else(field: str, value: object, is_good: bool) -> None:
    snapshot = {"snapshot_id": "s", "user_id": "u", "timestamp": "2026-01-01T00:00:00Z"}
    snapshot |= dict.fromkeys(Metric, 0.5)

    if is_good:
        assert getattr(ARI_SNAPSHOTS.model.model_validate(snapshot | {field: value}), field) == value
    else:
        with pytest.raises(ValidationError):
            ARI_SNAPSHOTS.model.model_validate(snapshot | {field: value})
