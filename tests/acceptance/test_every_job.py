"""Every job type through HTTP on imported records: the keys that clients rely on, known answers, no double rows."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from app.clock import iso, new_id, utc_now
from app.jobs.ari import Metric
from app.jobs.catalogue import load_catalogue
from app.processes import free_port
from app.records.record import load_record_types
from app.settings import Settings
from tests.support.sample_records import SAMPLES
from tests.support.service import HEADERS, Service, process
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)  # a limit, not an expectation: each job runs twice, some in a process

TEXT = (
    "Everyone knows that coffee is harmful. Studies show a 40% drop in focus. "
    "Research indicates benefits (Smith, 2020). Many people agree. Clearly, this is settled."
)
GOAL = {"goal_id": "goal-1", "user_id": "ada"}
ADA = {"user_id": "ada"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a job type is submitted, and the keys of its result, dotted where they are inside of others."""

    parameters: dict[str, Any] = field(default_factory=dict)
    keys: str
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "ari.aggregate_snapshots": Case(
        keys="user_id time_window_hours aggregated_count snapshot_period.start snapshot_period.end "
        + " ".join(f"metrics_summary.{metric}.{name}" for metric in Metric for name in ("count", "average", "latest")),
        parameters={"time_window_hours": 24 * 30},
    ),
    "ari.analyze_trends": Case(
        keys="data_points analysis_timestamp alerts.0.metric alerts.0.severity alerts.0.decline_percent "
        "alerts.0.message alerts.0.kind "
        "trends.decision_quality.first_value trends.decision_quality.last_value "
        "trends.decision_quality.change_percent trends.decision_quality.data_points "
        "trends.decision_quality.slope_per_day trends.decision_quality.p_value trends.decision_quality.q_value "
        "trends.decision_quality.change_point trends.decision_quality.direction",
        parameters=ADA,
    ),
    "ari.analyze_active_users": Case(keys="user_count data_points users.0.user_id users_omitted analysis_timestamp"),
    "ffe.plan_goal": Case(
        keys="goal_id user_id status complexity_level atomic_blocks_count atomic_blocks.0.block_index "
        "atomic_blocks.0.description atomic_blocks.0.size atomic_blocks.0.estimated_minutes total_estimated_minutes "
        "critical_path estimates planning_timestamp",
        parameters=GOAL | {"goal_description": "Learn to read music"},
    ),
    "ffe.track_progress": Case(keys="goal_id user_id status progress tracking_timestamp", parameters=GOAL),
    "edm.batch_analysis": Case(
        keys="debts_analyzed debts_by_severity.high debts_by_type.unfalsifiable resolution_recommendations.0 alerts "
        "analysis_timestamp",
        parameters=ADA,
    ),
    "edm.track_resolutions": Case(
        keys="total_resolutions avg_resolution_time_days resolution_rate_percent most_common_resolution_method "
        "by_severity backlog oldest weekly_trend tracking_timestamp",
        parameters=ADA,
    ),
    "edm.detect_misinformation": Case(
        keys="interactions_scanned potential_misinformation_found high_confidence_findings "
        "medium_confidence_findings missing_ids.0 detection_timestamp",
        parameters=ADA | {"interaction_ids": ["interaction-1", "nowhere"]},
    ),
    "model.finetune": Case(
        keys="metrics.loss metrics.accuracy metrics.perplexity model_id sha256 ignored_parameters",
        parameters=ADA | {"model_name": "kneser-ney"},
    ),
    "model.evaluate": Case(
        keys="metrics.accuracy metrics.precision metrics.recall metrics.f1 metrics.latency_ms.median "
        "metrics.latency_ms.p95 baseline.metrics",
        parameters=ADA | {"model_name": "kneser-ney"},
    ),
    "model.benchmark": Case(
        keys="scenarios.reasoning.accuracy scenarios.reasoning.latency_ms scenarios.reasoning.tokens_per_second "
        "overall_accuracy",
        parameters={"model_name": "kneser-ney", "scenarios": ["reasoning"]},
    ),
    "maintenance.archive_audit_logs": Case(keys="archived_count archives archive_timestamp"),
    "maintenance.maintain_database": Case(keys="operations.0.duration_s bytes_before bytes_after"),
    "maintenance.cleanup_cache": Case(keys="keys_removed bytes_freed"),
    "maintenance.enforce_retention_policy": Case(keys="policy.audit_logs enforced.audit_logs.deleted total_deleted"),
    "system.health_check": Case(
        keys="timestamp healthy checks.redis.status checks.database.status checks.disk.status checks.disk.free_gb "
        "checks.disk.percent_free checks.memory.status checks.memory.used_gb checks.memory.percent_used "
        "checks.workers.status checks.workers.alive"
    ),
    "system.daily_metrics": Case(
        keys="date generated_at metrics.tasks.total metrics.tasks.completed metrics.tasks.failed "
        "metrics.tasks.cancelled metrics.tasks.success_rate metrics.by_queue metrics.durations.p50 "
        "metrics.durations.p95 metrics.durations.p99 metrics.waits metrics.errors.total metrics.errors.error_rate "
        "metrics.users.unique_active"
    ),
    "system.monitor_queues": Case(keys="queues.default alerts healthy"),
    "system.bulk": Case(
        keys="action matched changed", parameters={"action": "cancel", "selection": {"ids": [new_id()]}}
    ),
    "system.echo": Case(keys="waited_seconds payload attempt", parameters={"payload": {"a": [1]}}),
    "system.flaky": Case(keys="attempt", parameters={"fail_times": 1}),
}
# Two archives at once would tell one of them to come again in a minute.
ORDER = [kind for kind in CASES if "retention" not in kind], [kind for kind in CASES if "retention" in kind]


def imported() -> dict[str, list[dict[str, Any]]]:
    """Return records of every kind; those that jobs look at lie in the windows that they look at."""
    now = utc_now()

    def at(**ago: float) -> str:
        return iso(now - timedelta(**ago))

    qualities = [0.9 - 0.02 * day for day in range(11)]
    return {kind: [sample] for kind, sample in SAMPLES.items()} | {
        "ari-snapshots": [
            SAMPLES["ari-snapshots"]
            | {"snapshot_id": f"s{day}", "timestamp": at(days=11 - day), "decision_quality": quality}
            for day, quality in enumerate(qualities)
        ],
        "interactions": [SAMPLES["interactions"] | {"timestamp": at(hours=2), "prompt": "", "response": TEXT}],
        "training-examples": [
            SAMPLES["training-examples"]
            | {
                "example_id": f"x{number}",
                "timestamp": at(hours=number),
                "input_text": f"Where does number {number % 7} live?",
                "output_text": f"Number {number % 7} lives in house {number % 5}.",
            }
            for number in range(40)
        ],
        "audit-entries": [
            SAMPLES["audit-entries"] | {"entry_id": f"e{number}", "timestamp": at(days=100 + number)}
            for number in range(20)
        ],
    }


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """An API and a worker of every queue, as processes."""
    real = settings.model_copy(update={"port": free_port(), "worker_cron": False})
    with ExitStack() as processes:
        processes.enter_context(process(real, "app", "serve"))
        processes.enter_context(process(real, "workers"))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{real.port}", headers=HEADERS) as session:
            client = Service(session)
            await eventually(client.is_ready, within=60)
            yield client


async def test_every_job_type_has_its_case() -> None:
    assert CASES.keys() == {job_type.kind for job_type in load_catalogue()}


async def test_every_job_runs_on_imported_records_and_a_second_run_doubles_no_row(service: Service) -> None:
    for kind, records in imported().items():
        async with service.session.post(f"/api/records/{kind}", json=records) as answer:
            assert (answer.status, (await answer.json()).get("stored")) == (200, len(records)), await answer.text()

    first = await run_all(service)
    between = await totals(service)
    second = await run_all(service)

    assert {kind: keys for kind, result in first.items() if (keys := missing(kind, result))} == {}
    assert await totals(service) == between
    check_known_answers(first, second)


async def run_all(service: Service) -> dict[str, Any]:
    """Run every job type once and return the results by kind."""
    results = {}
    for kinds in ORDER:
        tasks = {}
        for kind in kinds:
            case = CASES[kind]
            route = kind.replace(".", "/").replace("_", "-")
            tasks[kind] = await service.submit(route, case.parameters, **case.options)
        for kind, task in tasks.items():
            results[kind] = (await ended(service, task["task_id"]))["result"]
    return results


async def ended(service: Service, task_id: str) -> dict[str, Any]:
    """Wait for the end of a task; fail at once, with its error, if it is another than completed."""

    async def look() -> dict[str, Any] | None:
        task = await service.task(task_id)
        return task if task["status"] not in ("pending", "running") else None

    task = await eventually(look, 120)
    assert isinstance(task, dict)
    assert task["status"] == "completed", task
    return task


async def totals(service: Service) -> dict[str, int]:
    """Count the records of every kind but those that tell of the machine, and of what administrators did."""
    counts = {}
    for kind in load_record_types().keys() - {"alerts", "audit-entries"}:
        async with service.session.get(f"/api/records/{kind}?limit=1") as answer:
            counts[kind] = (await answer.json())["total_count"]
    return counts


def missing(kind: str, result: Any) -> list[str]:
    """Return the keys that a result should have and has not."""
    return [path for path in CASES[kind].keys.split() if not has(result, path.split("."))]


def has(value: Any, path: list[str]) -> bool:
    for name in path:
        if isinstance(value, list):
            if len(value) <= int(name):
                return False
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return False
    return True


def check_known_answers(first: dict[str, Any], second: dict[str, Any]) -> None:
    trends, debts = first["ari.analyze_trends"], first["edm.batch_analysis"]
    fall = next(one for one in trends["alerts"] if (one["metric"], one["kind"]) == ("decision_quality", "change"))
    assert (fall["severity"], round(fall["decline_percent"], 1)) == ("critical", 22.2)
    assert first["ari.aggregate_snapshots"]["metrics_summary"]["decision_quality"]["latest"] == pytest.approx(0.7)
    found = debts["debts_by_type"]
    assert (found["unfalsifiable"], found["missing_citation"], found["vague_claim"]) == (2, 1, 1)
    assert first["edm.detect_misinformation"]["missing_ids"] == ["nowhere"]
    assert (first["system.echo"]["payload"], first["system.flaky"]["attempt"]) == ({"a": [1]}, 2)

    archives = [one["maintenance.archive_audit_logs"]["archived_count"] for one in (first, second)]
    plans = [one["ffe.plan_goal"]["atomic_blocks"] for one in (first, second)]
    models = [one["model.finetune"]["model_id"] for one in (first, second)]
    assert archives == [20, 0]
    assert [block["block_id"] for block in plans[0]] == [block["block_id"] for block in plans[1]]
    assert models[0] == models[1]
