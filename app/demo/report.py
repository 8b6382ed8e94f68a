"""What the jobs of the demo returned, beside what the sample data had put in: models, a table, a file.

Every number comes from a job's result or from the scenario; nothing is computed here. Inside the demo alone.
"""

from collections.abc import Iterator
from datetime import date

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.demo.samples import Scenario
from app.jobs.ari import (
    AggregateSnapshotsResult,
    AnalysisStatus,
    AnalyzeTrendsResult,
    Metric,
    Severity,
    Trend,
    TrendAlert,
)
from app.jobs.edm import BatchAnalysisResult
from app.jobs.ffe import PlanGoalResult
from app.jobs.fields import Model
from app.jobs.maintenance import ArchiveAuditLogsResult
from app.jobs.model import FinetuneResult
from app.jobs.status import Status

_CHANCE = (
    "An alert where nothing was put in is chance: of users whose metrics do not change, the statistics (q < .05) call "
    "about one in twenty changed."
)


class Ended(Model):
    """How a task ended."""

    task_id: str
    """The task."""
    status: Status
    """The status it ended with."""
    error_message: str | None
    """Why it failed, if it did."""


class Analysis(Ended):
    """One sample user: what was put in, and how the analysis ended."""

    user_id: str
    """The sample user."""
    story: str
    """The scenario in words."""
    put_in: dict[Metric, str]
    """What the scenario does to each metric that it does anything to."""
    result: AnalyzeTrendsResult | None
    """What it returned; null unless completed."""


class Aggregation(Ended):
    """The one summary over all sample users."""

    result: AggregateSnapshotsResult | None
    """What it returned; null unless completed."""


class Plan(Ended):
    """The plan of a sample user's goal."""

    result: PlanGoalResult | None
    """What it returned; null unless completed."""


class DebtReport(Ended):
    """What a sample user took on without support."""

    result: BatchAnalysisResult | None
    """What it returned; null unless completed."""


class Lesson(Ended):
    """One training of the sample user's model."""

    examples: int
    """How many texts it was to be trained and judged on."""
    result: FinetuneResult | None
    """What it returned; null unless completed."""


class Archiving(Ended):
    """The archive of old audit entries."""

    result: ArchiveAuditLogsResult | None
    """What it returned; null unless completed."""


class Findings(Model):
    """What every job of the demo returned."""

    analyses: tuple[Analysis, ...]
    """The trend analyses, one a user."""
    aggregation: Aggregation
    """The summary over all users."""
    plan: Plan
    """The plan of a goal."""
    debts: DebtReport
    """The report of epistemic debts."""
    lessons: tuple[Lesson, ...]
    """The trainings, in their order."""
    archiving: Archiving
    """The archive of old audit entries."""

    @property
    def tasks(self) -> tuple[Ended, ...]:
        """All jobs."""
        return (*self.analyses, self.aggregation, self.plan, self.debts, *self.lessons, self.archiving)

    @property
    def is_complete(self) -> bool:
        """Whether every job completed."""
        return all(task.status is Status.COMPLETED for task in self.tasks)


class Report(Model):
    """Everything that a run of the demo found, and what in."""

    seed: int
    """The seed of the sample data."""
    last_day: date
    """The last day of the sample data."""
    stored: dict[str, int]
    """How many sample records of each kind were stored."""
    findings: Findings
    """What the jobs returned."""


def put_in(scenario: Scenario) -> dict[Metric, str]:
    """Return what a scenario does to its metrics, in words."""
    return {change.metric: str(change) for change in scenario.changes}


def findings_table(report: Report) -> Table:
    """Lay out what was found: for each user the metrics that something was put into, or found in."""
    table = Table(title="What the analyses found in the sample data", title_justify="left", show_lines=False)
    for name in ("user", "metric", "put in"):
        table.add_column(name)
    for name in ("change", "per day", "q-value"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("level changed after")
    table.add_column("alerts")
    for analysis in report.findings.analyses:
        table.add_section()
        for row in _rows(analysis):
            table.add_row(*row)
    if any(map(_is_alerted_by_chance, report.findings.analyses)):
        table.caption, table.caption_justify = _CHANCE, "left"
    return table


def summary_of(aggregation: Aggregation) -> str:
    """Return the summary over all users as a few sentences."""
    result = aggregation.result
    if result is None:
        return f"The summary over all users is {aggregation.status}: {aggregation.error_message}"
    told = [
        f"{metric} {summary.average:.2f} ({summary.min:.2f} to {summary.max:.2f})"
        for metric, summary in result.metrics_summary.items()
        if summary.average is not None
    ]
    return f"All {result.user_count} users, {result.aggregated_count} snapshots, on average: {', '.join(told)}."


def _is_alerted_by_chance(analysis: Analysis) -> bool:
    return analysis.result is not None and any(alert.metric not in analysis.put_in for alert in analysis.result.alerts)


def _rows(analysis: Analysis) -> Iterator[tuple[str | Text, ...]]:
    who = Text.assemble((analysis.user_id, "bold"), f"\n{analysis.story}")
    result = analysis.result
    if result is None:
        yield (who, "", "", "", "", "", "", Text(f"{analysis.status}: {analysis.error_message}", "red"))
    elif result.status is AnalysisStatus.INSUFFICIENT_DATA:
        yield (who, "—", "", "", "", "", "", f"insufficient data: {result.data_points} snapshot")
    else:
        shown = [metric for metric in result.trends if _is_worth_a_row(analysis, result, metric)]
        for at, metric in enumerate(shown):
            given = escape(analysis.put_in.get(metric, "nothing"))
            yield (who if at == 0 else "", metric, given, *_numbers(result.trends[metric]), _alerts(result, metric))
        if not shown:
            yield (who, f"all {len(result.trends)}", "nothing", "", "", "none < .05", "", "none")


def _is_worth_a_row(analysis: Analysis, result: AnalyzeTrendsResult, metric: Metric) -> bool:
    is_alerted = any(alert.metric == metric for alert in result.alerts)
    return metric in analysis.put_in or result.trends[metric].significant or is_alerted


def _numbers(trend: Trend) -> tuple[str, str, str, str]:
    step = trend.change_point
    return (
        "—" if trend.change_percent is None else f"{trend.change_percent:+.1f} %",
        "—" if trend.slope_per_day is None else f"{trend.slope_per_day:+.4f}",
        "—" if trend.q_value is None else f"{trend.q_value:.2g}",
        "—" if step is None else f"{step.at:%Y-%m-%d} (day {step.index}): {step.before:.2f} → {step.after:.2f}",
    )


def _alerts(result: AnalyzeTrendsResult, metric: Metric) -> Text:
    alerts = [alert for alert in result.alerts if alert.metric == metric]
    return Text("\n").join(_alert(alert) for alert in alerts) if alerts else Text("none")


def _alert(alert: TrendAlert) -> Text:
    return Text(f"{alert.severity} ({alert.kind})", "red" if alert.severity is Severity.CRITICAL else "yellow")
