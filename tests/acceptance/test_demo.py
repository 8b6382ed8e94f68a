"""The demo as people run it: real processes, every job completed, and numbers that follow from the sample data."""

import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from io import StringIO
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import pytest
from rich.console import Console

from app.demo.gallery import show_plan
from app.demo.report import Analysis, Report
from app.demo.samples import SCENARIOS, sample_snapshots
from app.demo.workspace import AUDIT_ENTRIES, LESSONS
from app.embedded import find_bundled_server
from app.jobs.ari import AnalysisStatus, AnalyzeTrendsResult, Direction, Metric, Trend
from app.jobs.edm import DebtType
from app.jobs.status import Status
from app.records.ari_snapshots import AriSnapshot
from tests.support.demo import running_demo


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A demo that has ended, and all that is left of it."""

    code: int
    said: str
    report: Report
    left_behind: list[Path]
    redis_binary: Path

    def result_of(self, user_id: str) -> AnalyzeTrendsResult:
        (result,) = [analysis.result for analysis in self.report.findings.analyses if analysis.user_id == user_id]
        assert result is not None
        return result


@pytest.fixture(scope="module", params=["on PATH", "in the wheel"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A demo that ran to its end, once with a Redis on PATH and once without."""
    directory = tmp_path_factory.mktemp("demo")
    path, report = directory / "bin", directory / "findings.json"
    path.mkdir()
    bundled = find_bundled_server()
    assert bundled is not None
    if request.param == "on PATH":
        (path / "redis-server").symlink_to(shutil.which("redis-server") or bundled)
        bundled = path / "redis-server"
    elsewhere = {name: str(directory / "elsewhere") for name in ("ARCHIVE_ROOT", "MODEL_DIR", "TEMP_DIR")}
    with running_demo(directory, "--report", str(report), "--seed", "11", PATH=str(path), **elsewhere) as demo:
        code = demo.finish()
        return Finished(
            code=code,
            said=demo.said,
            report=Report.model_validate_json(report.read_bytes()),
            left_behind=[*demo.temporary_files(), *directory.glob("elsewhere")],
            redis_binary=bundled,
        )


def test_without_a_terminal_it_leaves_with_0_once_every_job_has_completed(finished: Finished) -> None:
    assert finished.code == 0, finished.said
    assert finished.report.findings.is_complete
    assert [analysis.user_id for analysis in finished.report.findings.analyses] == [one.user_id for one in SCENARIOS]
    assert finished.left_behind == []


def test_redis_comes_from_path_and_else_from_the_wheel(finished: Finished) -> None:
    assert f"Redis is {finished.redis_binary}, started for the demo" in finished.said


def test_the_numbers_follow_from_the_sample_data(finished: Finished) -> None:
    for analysis in finished.report.findings.analyses:
        snapshots = samples_of(analysis.user_id, finished.report)
        result = finished.result_of(analysis.user_id)

        assert result.data_points == len(snapshots)
        for metric, trend in result.trends.items():
            assert_follows(trend, metric, snapshots)


def test_the_table_shows_the_numbers_of_the_results_beside_what_was_put_in(finished: Finished) -> None:
    for analysis in finished.report.findings.analyses:
        for metric, change in analysis.put_in.items():
            trend = finished.result_of(analysis.user_id).trends[metric]
            (line,) = [line for line in section_of(analysis, finished.said) if metric in line]

            assert change.split(" on day")[0] in line
            assert f"{trend.change_percent:+.1f} %" in line
            assert f"{trend.slope_per_day:+.4f}" in line
            assert f"{trend.q_value:.2g}" in line


def test_what_was_put_in_is_found(finished: Finished) -> None:
    for scenario in SCENARIOS:
        for change in scenario.changes:
            trend = finished.result_of(scenario.user_id).trends[change.metric]
            if change.step:
                assert trend.change_point is not None
                assert trend.change_point.index == change.at
            else:
                assert trend.direction is (Direction.INCREASING if change.per_day > 0 else Direction.DECREASING)


def test_an_alert_where_nothing_was_put_in_is_called_chance(finished: Finished) -> None:
    by_chance = [
        alert
        for analysis in finished.report.findings.analyses
        for alert in (analysis.result.alerts if analysis.result else ())
        if alert.metric not in analysis.put_in
    ]

    assert ("An alert where nothing was put in is chance" in finished.said) == bool(by_chance)


def test_too_little_data_is_called_so(finished: Finished) -> None:
    assert finished.result_of("sample-fin").status is AnalysisStatus.INSUFFICIENT_DATA
    assert "insufficient data:" in finished.said


def test_the_summary_over_all_users_is_the_arithmetic_of_all_snapshots(finished: Finished) -> None:
    snapshots = [found for scenario in SCENARIOS for found in samples_of(scenario.user_id, finished.report)]
    result = finished.report.findings.aggregation.result

    assert result is not None
    assert (result.aggregated_count, result.user_count) == (len(snapshots), len(SCENARIOS))
    for metric, summary in result.metrics_summary.items():
        values = [getattr(snapshot, metric) for snapshot in snapshots]
        assert (summary.count, summary.min, summary.max) == (len(values), min(values), max(values))
        assert summary.average == pytest.approx(fmean(values))
        assert f"{metric} {fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})" in finished.said


def test_a_goal_is_planned_in_blocks_that_the_table_shows(finished: Finished) -> None:
    plan = finished.report.findings.plan.result

    assert plan is not None
    assert plan.total_estimated_minutes == sum(block.estimated_minutes for block in plan.atomic_blocks)
    assert f"… and {plan.atomic_blocks_count - 6} more." in finished.said
    for block in plan.atomic_blocks[:6]:
        assert re.search(rf"{re.escape(block.title)} .*│ +{block.estimated_minutes} │", finished.said)


def test_what_was_said_without_support_is_told_by_kind(finished: Finished) -> None:
    debts = finished.report.findings.debts.result

    assert debts is not None
    assert {kind: count for kind, count in debts.debts_by_type.items() if count} == {
        DebtType.UNFALSIFIABLE: 2,
        DebtType.MISSING_CITATION: 1,
        DebtType.VAGUE_CLAIM: 1,
        DebtType.FACT_CHECK_MATCH: 2,
    }
    assert "6 debts in 5 interactions, matched with 5 fact checks." in finished.said


def test_the_more_a_model_has_read_the_less_it_is_perplexed(finished: Finished) -> None:
    lessons = finished.report.findings.lessons
    results = [lesson.result for lesson in lessons if lesson.result is not None]
    perplexities = [result.metrics.perplexity for result in results]

    assert [lesson.examples for lesson in lessons] == list(LESSONS)
    assert [result.version for result in results] == [1, 2, 3]
    assert perplexities == sorted(perplexities, reverse=True)
    assert perplexities[0] > 1.3 * perplexities[-1]
    for result in results:
        assert re.search(rf"│ +{result.training_samples} texts .* {result.metrics.perplexity:.1f} │ █", finished.said)


def test_old_audit_entries_are_in_an_archive_whose_manifest_is_shown(finished: Finished) -> None:
    archiving = finished.report.findings.archiving.result

    assert archiving is not None
    assert (archiving.archived_count, [found.count for found in archiving.archives]) == (AUDIT_ENTRIES, [AUDIT_ENTRIES])
    assert f"{archiving.archives[0].sha256} (read again: the same)" in finished.said
    assert f"{archiving.archives[0].manifest.rpartition('/')[2]} beside it says:" in finished.said


def test_a_task_that_failed_makes_the_demo_incomplete_and_is_told(finished: Finished) -> None:
    findings = finished.report.findings
    failed = findings.plan.model_copy(update={"status": Status.FAILED, "result": None, "error_message": "no room"})
    said = StringIO()

    show_plan(Console(file=said), failed)

    assert findings.is_complete
    assert not findings.model_copy(update={"plan": failed}).is_complete
    assert said.getvalue() == "The plan of the goal is failed: no room\n"


# --- arithmetic of our own ---------------------------------------------------------------------


def samples_of(user_id: str, report: Report) -> list[AriSnapshot]:
    snapshots = sample_snapshots(seed=report.seed, last_day=report.last_day)
    return [snapshot for snapshot in snapshots if snapshot.user_id == user_id]


def assert_follows(trend: Trend, metric: Metric, snapshots: Sequence[AriSnapshot]) -> None:
    """Compare a trend with the snapshots it is about."""
    values = [getattr(snapshot, metric) for snapshot in snapshots]
    days = daily_means(snapshots, metric)
    slopes = [(days[late] - days[early]) / (late - early).days for early, late in combinations(sorted(days), 2)]

    assert (trend.first_value, trend.last_value, trend.days) == (values[0], values[-1], len(days))
    assert trend.change_percent == pytest.approx((values[-1] - values[0]) / abs(values[0]) * 100)
    assert trend.slope_per_day == pytest.approx(median(slopes))
    if trend.change_point is not None:
        old = [mean for day, mean in days.items() if day <= trend.change_point.at.date()]
        new = [mean for day, mean in days.items() if day > trend.change_point.at.date()]
        assert (trend.change_point.before, trend.change_point.after) == pytest.approx((fmean(old), fmean(new)))


def daily_means(snapshots: Sequence[AriSnapshot], metric: Metric) -> dict[date, float]:
    days = defaultdict(list)
    for snapshot in snapshots:
        days[snapshot.timestamp.date()].append(getattr(snapshot, metric))
    return {day: fmean(values) for day, values in days.items()}


def section_of(analysis: Analysis, said: str) -> list[str]:
    """Return the lines of the table that are about one user."""
    (section,) = [part for part in said.split("├") if f"│ {analysis.user_id} " in part]
    return section.splitlines()
