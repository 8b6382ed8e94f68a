"""The contract of the EDM family, and what its records take."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.jobs import edm
from app.jobs.catalogue import Catalogue
from app.jobs.edm import BatchAnalysisParams, DetectMisinformationParams, FactCheckStatus
from app.records.edm_debts import EdmDebt
from app.records.fact_checks import FactCheck

REVIEW = {
    "@context": "https://schema.org",
    "@type": "ClaimReview",
    "claimReviewed": "The earth is flat.",
    "url": "https://checks.example/flat",
    "datePublished": "2024-03-01",
    "author": {"@type": "Organization", "name": "Checks"},
    "reviewRating": {"@type": "Rating", "ratingValue": 1, "worstRating": 1, "bestRating": 5, "alternateName": "Nope"},
}


@pytest.mark.parametrize("prefix", ["", "ai_pal.tasks.edm_tasks.", "backend.app.tasks."])
@pytest.mark.parametrize("name", ["batch_analysis", "track_resolutions", "detect_misinformation"])
def test_the_names_of_older_clients_mean_the_same_jobs(prefix: str, name: str) -> None:
    assert Catalogue([edm.FAMILY]).find(f"{prefix}edm_{name}").kind == f"edm.{name}"


def test_each_job_has_the_queue_the_retries_and_the_limits_that_clients_rely_on() -> None:
    figures = [
        (one.queue, one.retry.max_retries, one.retry.base_s, one.limits.hard_s, one.limits.soft_s)
        for one in edm.FAMILY.job_types
    ]

    assert figures == [
        ("edm_analysis", 3, 60, 1800, 1500),
        ("edm_analysis", 2, 30, 600, 540),
        ("edm_analysis", 2, 30, 1800, 1500),
    ]
    assert [one.subject for one in edm.FAMILY.job_types] == ["optional", "required", "required"]


@pytest.mark.parametrize("given", [{"time_window_days": 0}, {"min_severity": "grave"}, {"days": 3}])
def test_an_analysis_refuses_what_makes_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchAnalysisParams.model_validate(given)


def test_a_detection_is_about_one_user() -> None:
    with pytest.raises(ValidationError):
        DetectMisinformationParams.model_validate({"interaction_ids": ["i"]})


def test_a_claim_review_is_a_fact_check() -> None:
    check = FactCheck.model_validate(REVIEW)

    assert (check.claim, check.rating, check.publisher) == ("The earth is flat.", "Nope", "Checks")
    assert check.verdict is FactCheckStatus.FALSE
    assert check.date.isoformat() == "2024-03-01T00:00:00+00:00"
    assert FactCheck.model_validate(REVIEW).id == check.id


def test_what_a_publisher_calls_a_claim_gives_the_verdict_where_the_word_is_a_common_one() -> None:
    def verdict(**given: Any) -> FactCheckStatus | None:
        plain = {"id": "f", "claim": "c", "date": "2024-03-01"}
        return FactCheck.model_validate(plain | given).verdict

    assert verdict(rating="Pants on Fire!") is FactCheckStatus.FALSE
    assert verdict(rating="Mostly False") is FactCheckStatus.DISPUTED
    assert verdict(rating="True") is FactCheckStatus.VERIFIED
    assert verdict(rating="Four Pinocchios") is None
    assert verdict(rating="True", verdict="disputed") is FactCheckStatus.DISPUTED
    with pytest.raises(ValidationError):
        verdict(verdict="perhaps")


@pytest.mark.parametrize("given", [{"resolved": True}, {"resolved_at": "2026-01-01T00:00:00Z"}])
def test_a_debt_says_when_it_was_resolved_exactly_when_it_is(given: dict[str, Any]) -> None:
    plain = {"debt_id": "d", "user_id": "u", "timestamp": "2026-01-01T00:00:00Z", "claim": "c", "severity": "low"}

    with pytest.raises(ValidationError, match="resolved_at"):
        EdmDebt.model_validate(plain | {"debt_type": "stale"} | given)
