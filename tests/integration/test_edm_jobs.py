"""The EDM jobs on stored records, on both databases: what they find, store, and say."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from app.database import Database
from app.installation import open_installation
from app.jobs import edm
from app.jobs.catalogue import Catalogue
from app.jobs.edm import (
    BatchAnalysisParams,
    BatchAnalysisResult,
    DebtSeverity,
    DebtType,
    DetectMisinformationParams,
    DetectMisinformationResult,
    FactCheckStatus,
    TrackResolutionsParams,
    TrackResolutionsResult,
)
from app.jobs.status import Status
from app.orders import Order
from app.records.edm_debts import EDM_DEBTS, EdmDebt
from app.records.fact_checks import FACT_CHECKS, FactCheck
from app.records.interactions import INTERACTIONS, Interaction
from app.records.store import Records
from app.settings import Settings
from tests.support.loop_lag import MOST_S, p99, watched_loop
from tests.support.workplace import at_work, becomes
from workers.context import Context
from workers.families import load_work
from workers.families.edm import batch_analysis, detect_misinformation, track_resolutions
from workers.worker import Worker

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KNOWN = (
    "Everyone knows that coffee is harmful. Studies show a 40% drop in focus. "
    "Research indicates benefits (Smith, 2020). Many people agree. Clearly, this is settled."
)
T = TypeVar("T")


@dataclass
class Run:
    """What a job is given, for one attempt without a worker around it."""

    records: Records
    now: datetime = NOW
    reports: list[float] = field(default_factory=list)
    installation: Any = field(default_factory=lambda: SimpleNamespace(settings=Settings(edm_matcher="lexical")))

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        self.reports.append(percent)

    async def run_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, *args)


@pytest.fixture
def run(database: Database) -> Run:
    return Run(records=Records(database))


# --- edm.batch_analysis ------------------------------------------------------------------------


async def test_the_known_text_gives_the_known_debts(run: Run) -> None:
    await store(run, interaction("i", KNOWN))

    result = await analyze(run)

    assert (result.interactions_scanned, result.debts_analyzed, result.new_debts) == (1, 4, 4)
    assert present(result.debts_by_type) == {
        DebtType.UNFALSIFIABLE: 2,
        DebtType.MISSING_CITATION: 1,
        DebtType.VAGUE_CLAIM: 1,
    }
    assert present(result.debts_by_severity) == {
        DebtSeverity.LOW: 1,
        DebtSeverity.MEDIUM: 2,
        DebtSeverity.HIGH: 1,
    }
    assert result.resolution_recommendations[0].debt_type is DebtType.MISSING_CITATION
    assert (run.reports, run.reports[-1]) == (sorted(run.reports), 100)


async def test_without_interactions_every_count_is_zero(run: Run) -> None:
    result = await analyze(run)

    assert (result.interactions_scanned, result.debts_analyzed, result.new_debts) == (0, 0, 0)
    assert set(result.debts_by_type.values()) == set(result.debts_by_severity.values()) == {0}
    assert (result.resolution_recommendations, result.alerts, result.user_count) == ((), (), 0)


async def test_a_second_run_finds_nothing_new_and_says_the_same(run: Run) -> None:
    await store(run, interaction("i", KNOWN))
    first = await analyze(run)
    stored = await debts_of(run)

    second = await analyze(run)

    assert (second.interactions_scanned, second.new_debts) == (0, 0)
    assert second.resolution_recommendations == first.resolution_recommendations
    assert await debts_of(run) == stored


async def test_every_debt_that_a_result_names_is_stored_with_its_exact_place(run: Run) -> None:
    await store(run, interaction("i", KNOWN, prompt="Everyone knows 🌍 is round."))

    result = await analyze(run)

    parts = {"prompt": "Everyone knows 🌍 is round.", "response": KNOWN}
    for named in result.resolution_recommendations:
        debt = await run.records.get(EDM_DEBTS, named.debt_id)
        assert debt is not None
        assert debt.span is not None
        assert parts[str(debt.part)][debt.span.start : debt.span.end] == debt.claim == named.claim


async def test_a_citation_that_is_added_takes_the_debt_away(run: Run) -> None:
    await store(run, interaction("i", "Studies show a 40% drop in focus.", user_id="bare"))
    await store(run, interaction("j", "Studies show a 40% drop in focus [1].", user_id="cited"))

    assert (await analyze(run, user_id="bare")).debts_analyzed == 1
    assert (await analyze(run, user_id="cited")).debts_analyzed == 0


async def test_what_is_said_again_is_one_debt_of_more_weight(run: Run) -> None:
    await store(run, interaction("i", "Many people agree.", hours_ago=5))
    before = await analyze(run)
    await store(run, interaction("j", "many people agree!"))

    after = await analyze(run)

    assert after.new_debts == 0
    (once,), (twice,) = before.resolution_recommendations, after.resolution_recommendations
    assert (once.debt_id, once.occurrences, twice.occurrences) == (twice.debt_id, 1, 2)
    assert twice.priority > once.priority


async def test_an_interaction_that_is_stored_anew_is_looked_through_anew_without_doubles(run: Run) -> None:
    await store(run, interaction("i", KNOWN))
    await analyze(run)
    await store(run, interaction("i", KNOWN + " Some say otherwise."))

    result = await analyze(run)

    assert (result.interactions_scanned, result.new_debts, result.debts_analyzed) == (1, 1, 5)
    assert {debt.seen_in for debt in await debts_of(run)} == {("i",)}


async def test_a_later_claim_contradicts_an_earlier_one_even_if_that_was_looked_through_before(run: Run) -> None:
    await store(run, interaction("i", "The company employs 500 people.", hours_ago=5))
    await analyze(run)
    await store(run, interaction("j", "The company employs 700 people.", hours_ago=1))
    await store(run, interaction("k", "The company employs 700 people.", user_id="other"))

    await analyze(run, user_id=None)

    (debt,) = await debts_of(run)
    assert (debt.debt_type, debt.interaction_id) == (DebtType.CONTRADICTION, "j")
    assert "interaction i" in str(debt.evidence)


async def test_a_claim_that_matches_one_rated_false_is_critical(run: Run) -> None:
    await store(run, interaction("i", "Everyone knows that coffee is harmful. The moon is made of green cheese."))
    await check(run, "coffee", "Coffee is harmful.", rating="False")
    await check(run, "moon", "The moon is made of green cheese.", rating="False")

    result = await analyze(run)

    assert present(result.debts_by_type) == {DebtType.UNFALSIFIABLE: 1, DebtType.FACT_CHECK_MATCH: 1}
    assert present(result.debts_by_severity) == {DebtSeverity.CRITICAL: 2}
    assert [(alert.kind, alert.severity) for alert in result.alerts] == [("critical_debt", DebtSeverity.CRITICAL)]
    assert {debt.source for debt in await debts_of(run)} == {"coffee", "moon"}
    assert all("stance unknown" in str(debt.evidence) for debt in await debts_of(run))


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("The moon is made of green cheese.", "True"),
        ("The moon is not made of green cheese.", "False"),
        ("It is a myth that the moon is made of green cheese.", "False"),
        ("The sea is full of fish and salt.", "False"),
    ],
)
async def test_what_is_true_denied_or_something_else_is_not_critical(run: Run, said: str, rating: str) -> None:
    await store(run, interaction("i", said))
    await check(run, "moon", "The moon is made of green cheese.", rating=rating)

    assert (await analyze(run)).debts_analyzed == 0


async def test_debts_below_the_least_severity_are_stored_but_not_reported(run: Run) -> None:
    await store(run, interaction("i", KNOWN))

    result = await analyze(run, min_severity=DebtSeverity.HIGH)

    assert (result.debts_analyzed, result.new_debts, len(await debts_of(run))) == (1, 4, 4)


async def test_a_resolved_debt_stays_resolved_and_is_not_reported(run: Run) -> None:
    await store(run, interaction("i", "Many people agree."))
    await analyze(run)
    (debt,) = await debts_of(run)
    settled = {"resolved": True, "resolved_at": NOW, "resolution_method": "dropped"}
    await run.records.upsert(EDM_DEBTS, [debt.model_copy(update=settled)])
    await store(run, interaction("j", "Many people agree."))

    result = await analyze(run)

    assert result.debts_analyzed == 0
    (still,) = await debts_of(run)
    assert (still.resolved, still.resolution_method, still.seen_in) == (True, "dropped", ("i", "j"))


async def test_all_users_are_walked_one_by_one_and_listed(run: Run) -> None:
    for name in ("ada", "bob", "cy"):
        await store(run, interaction(f"{name}-1", KNOWN, user_id=name))
    await store(run, interaction("old", KNOWN, user_id="old", hours_ago=24 * 8))

    result = await analyze(run, user_id=None)

    assert result.users is not None
    assert [(one.user_id, one.interactions_scanned, one.open_debts) for one in result.users] == [
        ("ada", 1, 4),
        ("bob", 1, 4),
        ("cy", 1, 4),
    ]
    assert (result.user_count, result.debts_analyzed) == (3, 12)


# --- edm.track_resolutions ---------------------------------------------------------------------


async def test_resolutions_are_counted_timed_and_named(run: Run) -> None:
    await settle(run, "a", detected=10, resolved=8, method="citation_added")
    await settle(run, "b", detected=9, resolved=3, method="dropped")
    await settle(run, "before", detected=40, resolved=1, method="citation_added")
    await settle(run, "open", detected=5)
    await settle(run, "oldest", detected=90)

    result = await track(run)

    assert (result.total_resolutions, result.total_detected, result.backlog) == (3, 3, 2)
    assert (result.avg_resolution_time_days, result.median_resolution_time_days) == (pytest.approx(47 / 3), 6)
    assert result.resolution_rate_percent == pytest.approx(200 / 3)
    assert result.most_common_resolution_method == "citation_added"
    assert result.oldest is not None
    assert (result.oldest.debt_id, result.oldest.age_days) == ("oldest", 90)
    assert result.by_severity[DebtSeverity.HIGH].detected == 3
    assert sum(week.resolved for week in result.weekly_trend) == 3
    assert sum(week.detected for week in result.weekly_trend) == 3
    assert all(week.week_start.weekday() == 0 for week in result.weekly_trend)


async def test_of_methods_used_equally_often_the_first_in_the_alphabet_is_named(run: Run) -> None:
    await settle(run, "a", detected=3, resolved=2, method="verified")
    await settle(run, "b", detected=3, resolved=2, method="dropped")

    assert (await track(run)).most_common_resolution_method == "dropped"


async def test_one_more_resolution_raises_the_rate_and_lowers_the_backlog(run: Run) -> None:
    await settle(run, "a", detected=3)
    await settle(run, "b", detected=3)
    before = await track(run)

    await settle(run, "b", detected=3, resolved=1)

    after = await track(run)
    assert (before.resolution_rate_percent, after.resolution_rate_percent) == (0, 50)
    assert (before.backlog, after.backlog) == (2, 1)


async def test_without_debts_counts_are_zero_and_rates_null(run: Run) -> None:
    result = await track(run)

    assert (result.total_resolutions, result.backlog, result.total_detected) == (0, 0, 0)
    assert (result.avg_resolution_time_days, result.resolution_rate_percent, result.oldest) == (None, None, None)
    assert await track(run) == result


# --- edm.detect_misinformation -----------------------------------------------------------------


async def test_a_finding_names_the_interaction_the_claim_its_place_and_the_score(run: Run) -> None:
    text = "Hello there, my friend. Did you know? The moon is made of green cheese."
    await store(run, interaction("i", text))
    await check(run, "moon", "The moon is made of green cheese.", rating="False", url="https://checks.example/moon")

    result = await detect(run)

    (finding,) = result.high_confidence_findings
    assert (finding.interaction_id, finding.claim_id, finding.claim) == (
        "i",
        "moon",
        "The moon is made of green cheese.",
    )
    assert text[finding.span.start : finding.span.end] == finding.text == "The moon is made of green cheese."
    assert (finding.fact_check_status, finding.url) == (FactCheckStatus.FALSE, "https://checks.example/moon")
    assert finding.score >= 0.8
    assert finding.verdict == "Matches a claim rated “False”, stance unknown."
    assert (result.potential_misinformation_found, result.interactions_scanned) == (1, 1)
    assert await run.records.get(FACT_CHECKS, finding.claim_id) is not None
    assert await detect(run) == result


async def test_a_claim_rated_true_is_a_finding_but_no_potential_misinformation(run: Run) -> None:
    await store(run, interaction("i", "The moon moves the tides of the sea."))
    await check(run, "tides", "The moon moves the tides of the sea.", rating="True")

    result = await detect(run)

    assert len(result.high_confidence_findings) == 1
    assert result.potential_misinformation_found == 0


async def test_ids_of_others_and_of_nobody_are_missing(run: Run) -> None:
    await store(run, interaction("mine", KNOWN), interaction("foreign", KNOWN, user_id="other"))

    result = await detect(run, interaction_ids=("mine", "foreign", "nobody", "mine"))

    assert result.missing_ids == ("foreign", "nobody")
    assert result.interactions_scanned == 1


async def test_without_fact_checks_nothing_is_found_and_that_is_said(run: Run) -> None:
    await store(run, interaction("i", KNOWN), interaction("old", KNOWN, hours_ago=24 * 31))

    result = await detect(run)

    assert (result.fact_checks_used, result.interactions_scanned) == (0, 1)
    assert result.high_confidence_findings == result.medium_confidence_findings == ()


async def test_a_new_fact_check_changes_what_is_found(run: Run) -> None:
    await store(run, interaction("i", "The moon is made of green cheese."))
    await check(run, "sea", "The sea is made of wine.", rating="False")
    assert (await detect(run)).high_confidence_findings == ()

    await check(run, "moon", "The moon is made of green cheese.", rating="False")

    assert [one.claim_id for one in (await detect(run)).high_confidence_findings] == ["moon"]


# --- a real worker -----------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
async def test_a_worker_runs_the_three_jobs_on_stored_records(settings: Settings, database: Database) -> None:
    catalogue = Catalogue([edm.FAMILY])
    works = load_work(catalogue, catalogue.queues)
    said = Interaction(interaction_id="i", user_id="u", timestamp=datetime.now(UTC), response=KNOWN)
    async with open_installation(settings, catalogue) as house:
        await house.records.upsert(INTERACTIONS, [said])
        orders = [
            Order(job_type=edm.batch_analysis, params=BatchAnalysisParams(user_id="u"), owner="u"),
            Order(job_type=edm.track_resolutions, params=TrackResolutionsParams(user_id="u"), owner="u"),
            Order(job_type=edm.detect_misinformation, params=DetectMisinformationParams(user_id="u"), owner="u"),
        ]
        worker = Worker(house, functions=works, queues=catalogue.queues, max_jobs=5, handle_signals=False)
        async with at_work(worker):
            jobs = [
                await becomes(house, job.id, Status.COMPLETED, within=20)
                for order in orders
                for job in await house.lifecycle.submit([order])
            ]

    assert jobs[0].result["debts_by_type"]["unfalsifiable"] == 2
    assert jobs[1].result["backlog"] == 4
    assert jobs[2].result["interactions_scanned"] == 1


@pytest.mark.databases("sqlite")
async def test_a_thousand_interactions_leave_the_event_loop_free(run: Run) -> None:
    many = [interaction(f"i-{at}", f"{KNOWN} Item {at} costs {at} euros in shop {at % 7}.") for at in range(1000)]
    await store(run, *many)
    for at in range(300):
        await check(run, f"c-{at}", f"Politician number {at} said that item {at} will cost double.", rating="False")

    async with watched_loop() as lags:
        result = await analyze(run)

    assert result.interactions_scanned == 1000
    assert p99(lags) <= MOST_S


# --- arranging ---------------------------------------------------------------------------------


def interaction(
    name: str, response: str, *, prompt: str = "Tell me?", user_id: str = "u", hours_ago: float = 1
) -> Interaction:
    """Return an interaction of the last hour."""
    at = NOW - timedelta(hours=hours_ago)
    return Interaction(interaction_id=name, user_id=user_id, timestamp=at, prompt=prompt, response=response)


async def store(run: Run, *interactions: Interaction) -> None:
    """Store interactions as an ingest does."""
    await run.records.upsert(INTERACTIONS, interactions)


async def check(run: Run, name: str, claim: str, **given: Any) -> None:
    """Store one fact check."""
    fields = {"id": name, "claim": claim, "date": "2026-01-01T00:00:00Z", "publisher": "Checks"}
    await run.records.upsert(FACT_CHECKS, [FactCheck.model_validate(fields | given)])


async def settle(
    run: Run, name: str, *, detected: float, resolved: float | None = None, method: str | None = None
) -> None:
    """Store a debt by how many days ago it was detected and resolved."""
    debt = EdmDebt(
        debt_id=name,
        user_id="u",
        timestamp=NOW - timedelta(days=detected),
        claim="Studies show it.",
        debt_type=DebtType.MISSING_CITATION,
        severity=DebtSeverity.HIGH,
        resolved=resolved is not None,
        resolved_at=None if resolved is None else NOW - timedelta(days=resolved),
        resolution_method=method,
    )
    await run.records.upsert(EDM_DEBTS, [debt])


async def debts_of(run: Run) -> Sequence[EdmDebt]:
    """Return every stored debt."""
    return (await run.records.page(EDM_DEBTS, limit=1000)).records


def present(counts: dict[T, int]) -> dict[T, int]:
    """Return the counts that are not zero."""
    return {name: count for name, count in counts.items() if count}


async def analyze(run: Run, *, user_id: str | None = "u", **given: Any) -> BatchAnalysisResult:
    """Run ``edm.batch_analysis``."""
    return await batch_analysis(cast(Context, run), BatchAnalysisParams(user_id=user_id, **given))


async def track(run: Run) -> TrackResolutionsResult:
    """Run ``edm.track_resolutions``."""
    return await track_resolutions(cast(Context, run), TrackResolutionsParams(user_id="u"))


async def detect(run: Run, **given: Any) -> DetectMisinformationResult:
    """Run ``edm.detect_misinformation``."""
    return await detect_misinformation(cast(Context, run), DetectMisinformationParams(user_id="u", **given))
