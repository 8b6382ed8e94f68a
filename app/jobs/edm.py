"""The EDM family: epistemic debts, claims taken on without what would bear them out. The contract; pure data."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from app.jobs.contract import Family, JobType, Limits, RetryPolicy, TaskType
from app.jobs.fields import Days, Identifier, Model, Moment, Params, Result


class DebtType(StrEnum):
    """What a claim lacks."""

    UNFALSIFIABLE = "unfalsifiable"
    """It is said to be beyond doubt, so that nothing could show it wrong."""
    MISSING_CITATION = "missing_citation"
    """It leans on studies, experts or figures without naming any."""
    VAGUE_CLAIM = "vague_claim"
    """It does not say who, or how many."""
    STALE = "stale"
    """It says how things are now, by a year that has long passed."""
    CONTRADICTION = "contradiction"
    """It differs from an earlier claim of the same user, in a number or by a negation."""
    FACT_CHECK_MATCH = "fact_check_match"
    """It matches a claim that fact-checkers rated false, and lacks nothing else."""


class DebtSeverity(StrEnum):
    """How much rests on it."""

    LOW = "low"
    """Worth a second look."""
    MEDIUM = "medium"
    """Worth a question."""
    HIGH = "high"
    """Worth a source."""
    CRITICAL = "critical"
    """Worth correcting now: it matches a claim rated false."""


class FactCheckStatus(StrEnum):
    """What is known about the truth of a claim."""

    VERIFIED = "verified"
    """Borne out."""
    DISPUTED = "disputed"
    """Partly wrong, or argued about."""
    FALSE = "false"
    """Shown to be wrong."""
    UNVERIFIABLE = "unverifiable"
    """Cannot be checked."""
    PENDING = "pending"
    """Not checked yet."""


class Matcher(StrEnum):
    """By what claims were compared with fact checks; scores of the two are not alike."""

    LEXICAL = "lexical"
    """By their words and letters."""
    EMBEDDINGS = "embeddings"
    """By the meaning of sentences too, as a small language model embeds it."""


class Span(Model):
    """Where a text stands, in characters (Unicode code points) of the prompt or the response."""

    start: NonNegativeInt
    """The place of its first character, from 0."""
    end: NonNegativeInt
    """The place after its last character."""


# --- edm.batch_analysis ------------------------------------------------------------------------


class BatchAnalysisParams(Params):
    """Look for epistemic debts in what was not looked at before, of one user or of all."""

    user_id: Identifier | None = None
    """Whose interactions; null takes those of all users."""
    time_window_days: Days = 7
    """How far back from now the window reaches, in days."""
    min_severity: DebtSeverity = DebtSeverity.LOW
    """Debts below this are stored all the same, but not reported."""


class Recommendation(Model):
    """One open debt, and what would settle it."""

    rank: int
    """From 1, the most pressing first."""
    priority: NonNegativeFloat
    """Severity (1, 2, 4, 8) × age (1 + days/30, at most 4) × recurrence (1 + log2 of the interactions it is in)."""
    debt_id: str
    """Its record."""
    user_id: str
    """Whose it is."""
    debt_type: DebtType
    """What the claim lacks."""
    severity: DebtSeverity
    """How much rests on it."""
    claim: str
    """The sentence, at most 300 characters of it."""
    interaction_id: str | None
    """Where it was said first; null for a debt that was imported without it."""
    age_days: NonNegativeFloat
    """How long ago it was said first."""
    occurrences: int
    """In how many interactions it was said, counted up to 100."""
    recommendation: str
    """What would settle it, in one sentence."""


class DebtAlert(Model):
    """Something about the open debts of a user that should not wait."""

    user_id: str
    """Whose debts."""
    severity: DebtSeverity
    """How bad it is."""
    kind: str
    """``critical_debt``, or ``backlog`` when ten or more debts of high severity are open."""
    message: str
    """One sentence for people."""
    debt_ids: tuple[str, ...]
    """Which debts, at most 20."""


class UserDebts(Model):
    """One user's part of an analysis over all users."""

    user_id: str
    """Whose debts."""
    interactions_scanned: NonNegativeInt
    """How many interactions were looked at now."""
    open_debts: NonNegativeInt
    """How many debts of the window are unresolved."""


class BatchAnalysisResult(Result):
    """What claims lack support: figures over all open debts of the window, whichever run found them."""

    user_id: str | None
    """Whose interactions; null is all users."""
    time_window_days: int
    """The length of the window that was asked for, in days."""
    min_severity: DebtSeverity
    """The least severity reported."""
    interactions_scanned: NonNegativeInt
    """How many interactions this run looked at."""
    new_debts: NonNegativeInt
    """How many debts this run stored that were not there before, of any severity."""
    debts_analyzed: NonNegativeInt
    """How many open debts of the window have at least the least severity."""
    debts_by_severity: dict[DebtSeverity, NonNegativeInt]
    """The same by severity."""
    debts_by_type: dict[DebtType, NonNegativeInt]
    """The same by type."""
    fact_checks_used: NonNegativeInt
    """How many stored fact checks the claims were matched against."""
    matcher: Matcher
    """By what they were matched."""
    user_count: NonNegativeInt
    """How many users have an open debt in the window or an interaction that was looked at."""
    users: tuple[UserDebts, ...] | None
    """The users one by one, in the order of their ids, at most 500; null when one user was asked for."""
    resolution_recommendations: tuple[Recommendation, ...]
    """The most pressing debts, at most 50, ranked by severity × age × recurrence."""
    alerts: tuple[DebtAlert, ...]
    """What should not wait, at most 100."""
    analysis_timestamp: Moment
    """When the job started: the end of the window."""


# --- edm.track_resolutions ---------------------------------------------------------------------


class TrackResolutionsParams(Params):
    """See how one user's debts get resolved."""

    user_id: Identifier
    """Whose debts."""
    lookback_days: Days = 30
    """How far back from now the window reaches, in days."""


class SeverityResolutions(Model):
    """The debts of one severity."""

    detected: NonNegativeInt
    """How many were detected in the window."""
    resolved: NonNegativeInt
    """How many of those are resolved."""
    resolution_rate_percent: float | None
    """The share of the latter; null when none was detected."""


class OldestDebt(Model):
    """The debt that has been open longest."""

    debt_id: str
    """Its record."""
    claim: str
    """The sentence, at most 300 characters of it."""
    severity: DebtSeverity
    """How much rests on it."""
    age_days: NonNegativeFloat
    """How long it has been open."""


class WeekOfDebts(Model):
    """What happened in one week."""

    week_start: Moment
    """The Monday it begins on, 00:00 UTC; the first week is cut off by the window."""
    detected: NonNegativeInt
    """How many debts were detected."""
    resolved: NonNegativeInt
    """How many debts were resolved, whenever detected."""


class TrackResolutionsResult(Result):
    """How one user's debts get resolved."""

    user_id: str
    """Whose debts."""
    lookback_days: int
    """The length of the window that was asked for, in days."""
    total_resolutions: NonNegativeInt
    """How many debts were resolved in the window, whenever detected."""
    avg_resolution_time_days: float | None
    """The mean time from detection to resolution of those; null when there is none."""
    median_resolution_time_days: float | None
    """The median of the same."""
    total_detected: NonNegativeInt
    """How many debts were detected in the window."""
    resolution_rate_percent: float | None
    """The share of debts detected in the window that are resolved; null when none was detected."""
    most_common_resolution_method: str | None
    """The method used most in the window, the first in the alphabet of equals; null when none was named."""
    by_severity: dict[DebtSeverity, SeverityResolutions]
    """The debts detected in the window, by severity."""
    backlog: NonNegativeInt
    """How many debts are open, whenever detected."""
    oldest: OldestDebt | None
    """The debt that has been open longest; null when none is open."""
    weekly_trend: tuple[WeekOfDebts, ...]
    """The weeks of the window, oldest first."""
    tracking_timestamp: Moment
    """When the job started: the end of the window."""


# --- edm.detect_misinformation -----------------------------------------------------------------


class DetectMisinformationParams(Params):
    """Match what stands in one user's interactions against the stored fact checks."""

    user_id: Identifier
    """Whose interactions."""
    interaction_ids: Annotated[tuple[Identifier, ...], Field(max_length=1000)] | None = None
    """Which interactions; null takes those of the last 30 days, the newest 1,000."""


class Alternative(Model):
    """Another fact check that the text may mean."""

    fact_check_id: str
    """Its record."""
    score: float
    """The confidence that the text repeats its claim, 0–1."""


class Finding(Model):
    """A passage that repeats a fact-checked claim, as far as its words tell."""

    interaction_id: str
    """The interaction."""
    part: str
    """``prompt`` or ``response``."""
    span: Span
    """Where in that part the passage stands."""
    text: str
    """The passage, at most 500 characters of it."""
    claim_id: str
    """The fact check whose claim it matches."""
    claim: str
    """That claim, at most 500 characters of it."""
    score: float
    """The confidence that the passage is about this claim, 0–1; calibrated on posts with and without a match."""
    rating: str | None
    """What the fact-checkers called the claim, in their words."""
    fact_check_status: FactCheckStatus
    """The same as one of five words."""
    url: str | None
    """Where the fact check stands."""
    verdict: str
    """What follows, in one sentence; it never says whether the passage affirms or denies the claim."""
    is_potential_misinformation: bool
    """Whether the claim is rated false or disputed, and the passage does not visibly deny it."""
    alternatives: tuple[Alternative, ...]
    """The next best fact checks, at most four."""


class DetectMisinformationResult(Result):
    """Which passages match fact-checked claims."""

    user_id: str
    """Whose interactions."""
    interactions_scanned: NonNegativeInt
    """How many interactions were looked at."""
    passages_scanned: NonNegativeInt
    """How many sentences and short paragraphs were matched."""
    fact_checks_used: NonNegativeInt
    """How many stored fact checks they were matched against; with none there can be no finding."""
    matcher: Matcher
    """By what they were matched."""
    potential_misinformation_found: NonNegativeInt
    """How many findings match a claim that is rated false or disputed and do not visibly deny it."""
    high_confidence_findings: tuple[Finding, ...]
    """Findings with a score of at least .8, the highest first, at most 200."""
    medium_confidence_findings: tuple[Finding, ...]
    """Findings with a score from .5, the highest first, at most 100."""
    findings_omitted: NonNegativeInt
    """How many findings more there are than the two lists show."""
    missing_ids: tuple[str, ...]
    """Which of the ids asked for are not interactions of this user."""
    detection_timestamp: Moment
    """When the job started."""


# --- the family --------------------------------------------------------------------------------


def _aliases(function: str) -> tuple[str, ...]:
    return (function, f"ai_pal.tasks.edm_tasks.{function}", f"backend.app.tasks.{function}")


batch_analysis = JobType(
    kind="edm.batch_analysis",
    summary="Find epistemic debts in interactions that were not looked at before, of one user or of all.",
    params=BatchAnalysisParams,
    result=BatchAnalysisResult,
    queue="edm_analysis",
    task_type=TaskType.EDM_ANALYSIS,
    retry=RetryPolicy(max_retries=3, base_s=60.0),
    aliases=_aliases("edm_batch_analysis"),
)
track_resolutions = JobType(
    kind="edm.track_resolutions",
    summary="See how many of a user's epistemic debts were resolved, how fast and by what.",
    params=TrackResolutionsParams,
    result=TrackResolutionsResult,
    queue="edm_analysis",
    task_type=TaskType.EDM_ANALYSIS,
    retry=RetryPolicy(max_retries=2, base_s=30.0),
    limits=Limits(hard_s=600.0, soft_s=540.0),
    aliases=_aliases("edm_track_resolutions"),
)
detect_misinformation = JobType(
    kind="edm.detect_misinformation",
    summary="Match a user's interactions against the stored fact checks.",
    params=DetectMisinformationParams,
    result=DetectMisinformationResult,
    queue="edm_analysis",
    task_type=TaskType.EDM_ANALYSIS,
    retry=RetryPolicy(max_retries=2, base_s=30.0),
    aliases=_aliases("edm_detect_misinformation"),
)

FAMILY = Family(
    name="edm",
    summary="Epistemic debts: claims that lack support, and how they get resolved.",
    job_types=(batch_analysis, track_resolutions, detect_misinformation),
)
