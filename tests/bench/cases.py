"""Every job at a realistic size: with which records, with which params, and in which company."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypeAlias

from app.jobs import ari, edm, ffe, maintenance, model, system
from app.jobs.ari import Metric
from app.jobs.contract import JobType
from app.jobs.fields import Params
from app.records.ari_snapshots import ARI_SNAPSHOTS, AriSnapshot
from app.records.audit_entries import AUDIT_ENTRIES, AuditEntry
from app.records.fact_checks import FACT_CHECKS, FactCheck
from app.records.interactions import INTERACTIONS, Interaction
from app.records.record import Record, RecordType
from app.records.training_examples import TRAINING_EXAMPLES, TrainingExample
from tests.bench import edm_matching

Stored: TypeAlias = Iterator[tuple[RecordType[Any], Record]]

USER = "user-00"
_USERS = 10
_ENTRY_BYTES = 350  # of one audit entry as a line of JSON
_AUDIT_BYTES = 35_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One job, submitted to a worker of its own."""

    job_type: JobType[Any, Any]
    params: Params
    cancelled_first: bool = False  # submitted, cancelled a tenth of the way, and submitted again


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs that run one after the other on the same records."""

    size: str  # in words, at full scale
    store: Callable[[float], Stored]  # given the scale
    cases: Sequence[Case]
    settings: dict[str, Any] = field(default_factory=dict)
    has_planner: bool = False  # whether a planner proposes 200 blocks
    needs_texts: bool = False  # whether the real texts must be at hand


def snapshots(scale: float) -> Stored:
    """Yield 100,000 snapshots of ten users over a year."""
    random, now = Random(1), _now()
    for at in range(round(100_000 * scale)):
        values: dict[str, Any] = {metric.value: random.random() for metric in Metric}
        moment = now - timedelta(minutes=5.2 * at)
        yield (
            ARI_SNAPSHOTS,
            AriSnapshot(snapshot_id=f"s{at:06}", user_id=f"user-{at % _USERS:02}", timestamp=moment, **values),
        )


def texts(scale: float) -> Stored:
    """Yield 10,000 real claims that were checked, and 10,000 interactions of two sentences and a post."""
    random, now = Random(2), _now()
    for row in edm_matching.read("verified-claims.ndjson")[: round(10_000 * scale)]:
        yield (
            FACT_CHECKS,
            FactCheck.model_validate({"id": row["id"], "claim": row["claim"], "rating": "False", "date": now}),
        )
    sentences, posts = edm_matching.encyclopedia(), [row["text"] for row in edm_matching.read("tweets-train.ndjson")]
    for at in range(round(10_000 * scale)):
        said = " ".join([*random.sample(sentences, 2), random.choice(posts), f"Studies show that item {at} is safe."])
        yield (
            INTERACTIONS,
            Interaction(
                interaction_id=f"i{at:05}",
                user_id=f"user-{at % _USERS:02}",
                timestamp=now - timedelta(seconds=50 * at),
                prompt="What do you think of it?",
                response=said,
            ),
        )


def examples(scale: float) -> Stored:
    """Yield 4,000 exchanges of a thousand characters."""
    random, now = Random(3), _now()
    for at in range(round(4_000 * scale)):
        words = " ".join(f"word{int(random.paretovariate(0.6)) % 9973}" for _ in range(140))[:1000]
        yield (
            TRAINING_EXAMPLES,
            TrainingExample(
                example_id=f"x{at:05}",
                user_id=USER,
                timestamp=now - timedelta(minutes=at),
                input_text=words[:500],
                output_text=words[500:],
                quality=0.9,
                label=f"label-{at % 12}",
            ),
        )


def entries(scale: float) -> Stored:
    """Yield 35 MB of audit entries, all of them older than 90 days."""
    random, then = Random(4), _now() - timedelta(days=91)
    for at in range(round(_AUDIT_BYTES / _ENTRY_BYTES * scale)):
        yield (
            AUDIT_ENTRIES,
            AuditEntry(
                entry_id=f"e{at:06}",
                user_id=f"user-{at % 100:02}",
                timestamp=then - timedelta(seconds=at),
                event_type="document.changed",
                action="changed a document",
                details={"token": random.randbytes(60).hex(), "size": at},
                ip_address="192.0.2.7",
            ),
        )


def nothing(_scale: float) -> Stored:
    """Yield no record."""
    yield from ()


_ALL = edm.BatchAnalysisParams(user_id=None, time_window_days=30)
_EDM = (
    Case(job_type=edm.batch_analysis, params=_ALL, cancelled_first=True),
    Case(job_type=edm.detect_misinformation, params=edm.DetectMisinformationParams(user_id=USER)),
    Case(job_type=edm.track_resolutions, params=edm.TrackResolutionsParams(user_id=USER)),
)
_TUNE = partial(model.FinetuneParams, user_id=USER, training_samples=4_000)

GROUPS = {
    "ari": Group(
        size="100,000 snapshots",
        store=snapshots,
        cases=(
            Case(job_type=ari.aggregate_snapshots, params=ari.AggregateSnapshotsParams(time_window_hours=8760)),
            Case(job_type=ari.analyze_trends, params=ari.AnalyzeTrendsParams(user_id=USER, lookback_days=365)),
            Case(job_type=ari.analyze_active_users, params=ari.AnalyzeActiveUsersParams()),
        ),
    ),
    "edm": Group(
        size="10,000 interactions, 10,000 fact checks, words",
        store=texts,
        cases=_EDM,
        settings={"edm_matcher": "lexical"},
        needs_texts=True,
    ),
    "edm-embeddings": Group(
        size="10,000 interactions, 10,000 fact checks, embeddings",
        store=texts,
        cases=_EDM[:2],
        settings={"edm_matcher": "embeddings"},
        needs_texts=True,
    ),
    "ffe": Group(
        size="a plan of 200 blocks",
        store=nothing,
        cases=(
            Case(
                job_type=ffe.plan_goal,
                params=ffe.PlanGoalParams(goal_id="g", user_id=USER, goal_description="Build a house"),
            ),
            Case(job_type=ffe.track_progress, params=ffe.TrackProgressParams(goal_id="g", user_id=USER)),
        ),
        has_planner=True,
    ),
    "model": Group(
        size="4,000 examples of 1,000 characters",
        store=examples,
        cases=(
            Case(job_type=model.finetune, params=_TUNE(model_name="kneser-ney"), cancelled_first=True),
            Case(job_type=model.finetune, params=_TUNE(model_name="sgd-classifier"), cancelled_first=True),
            Case(
                job_type=model.evaluate,
                params=model.EvaluateParams(user_id=USER, model_name="kneser-ney-tuned", test_samples=2_000),
            ),
            Case(job_type=model.benchmark, params=model.BenchmarkParams(model_name="kneser-ney")),
        ),
    ),
    "maintenance": Group(
        size="35 MB of audit entries",
        store=entries,
        cases=(
            Case(
                job_type=maintenance.maintain_database,
                params=maintenance.MaintainDatabaseParams(maintenance_level=maintenance.MaintenanceLevel.HEAVY),
            ),
            Case(job_type=maintenance.archive_audit_logs, params=maintenance.ArchiveAuditLogsParams()),
            Case(job_type=maintenance.cleanup_cache, params=maintenance.CleanupCacheParams()),
        ),
    ),
    "retention": Group(
        size="35 MB of audit entries",
        store=entries,
        cases=(
            Case(job_type=maintenance.enforce_retention_policy, params=maintenance.EnforceRetentionPolicyParams()),
            Case(job_type=system.health_check, params=system.HealthCheckParams()),
            Case(job_type=system.daily_metrics, params=system.DailyMetricsParams()),
            Case(job_type=system.monitor_queues, params=system.MonitorQueuesParams()),
        ),
    ),
}


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
