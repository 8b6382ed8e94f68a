"""What else the jobs of the demo made: a plan, a report of debts, a model, an archive. Inside the demo alone.

Every number comes from a job's result, or from the files that it names.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.demo.report import Archiving, DebtReport, Ended, Lesson, Plan
from app.errors import ServiceError
from app.jobs.edm import DebtSeverity

_SHOWN_BLOCKS = 6
_BAR = 32  # cells of the longest bar
_STYLES: Mapping[DebtSeverity, str] = {
    DebtSeverity.CRITICAL: "bold red",
    DebtSeverity.HIGH: "red",
    DebtSeverity.MEDIUM: "yellow",
    DebtSeverity.LOW: "dim",
}


def show_plan(console: Console, plan: Plan) -> None:
    """Show the first blocks of a plan, and how long all will take."""
    result = plan.result
    if result is None:
        _say_failed(console, "The plan of the goal", plan)
        return
    table = _table("A goal becomes blocks that one sitting can finish", "begin", "block", "done when")
    table.add_column("minutes", justify="right")
    for block in result.atomic_blocks[:_SHOWN_BLOCKS]:
        begin = f"{block.scheduled_start:%a %d %b %H:%M}" if block.scheduled_start else "—"
        table.add_row(begin, escape(block.title), escape(block.done_criterion), str(block.estimated_minutes))
    console.print(table)
    rest = result.atomic_blocks_count - _SHOWN_BLOCKS
    hours = [f"{minutes / 60:.1f} h" for minutes in (result.estimates.p50_minutes, result.estimates.p95_minutes)]
    more = f"… and {rest} more. " if rest > 0 else ""
    _say(
        console,
        f"{more}Together {result.total_estimated_minutes / 60:.1f} h; even odds by {hours[0]}, nearly sure by "
        f"{hours[1]}; the longest chain of blocks takes {result.critical_path.minutes / 60:.1f} h.",
    )


def show_debts(console: Console, debts: DebtReport) -> None:
    """Show what was said without support, the gravest first."""
    result = debts.result
    if result is None:
        _say_failed(console, "The report of epistemic debts", debts)
        return
    table = _table("What was said without support", "severity", "lacks", "claim", "what would settle it")
    for found in result.resolution_recommendations:
        severity = Text(found.severity, _STYLES[found.severity])
        table.add_row(severity, found.debt_type.replace("_", " "), escape(found.claim), escape(found.recommendation))
    console.print(table)
    _say(
        console,
        f"{result.debts_analyzed} debts in {result.interactions_scanned} interactions, "
        f"matched with {result.fact_checks_used} fact checks.",
    )


def show_lessons(console: Console, lessons: Sequence[Lesson]) -> None:
    """Show how the perplexity on held-out texts falls as a model learns from more."""
    table = _table("A small model learns: its perplexity on texts that it never saw")
    for name in ("version", "learned from", "judged on", "next word right", "perplexity"):
        table.add_column(name, justify="right")
    table.add_column("")
    highest = max((lesson.result.metrics.perplexity for lesson in lessons if lesson.result), default=1.0)
    for lesson in lessons:
        result = lesson.result
        if result is None:
            _say_failed(console, f"The training on {lesson.examples} texts", lesson)
            continue
        metrics = result.metrics
        bar = "█" * max(1, round(_BAR * metrics.perplexity / highest))
        counts = (str(result.version), f"{result.training_samples} texts", f"{result.held_out_samples} texts")
        table.add_row(*counts, f"{metrics.accuracy:.0%}", f"{metrics.perplexity:.1f}", Text(bar, "cyan"))
    console.print(table)


def show_archive(console: Console, archiving: Archiving, directory: Path) -> None:
    """Show the manifest of an archive as it lies on the disk; raise ServiceError if the file is not what it says."""
    result = archiving.result
    if result is None:
        _say_failed(console, "The archive", archiving)
        return
    _say(
        console, f"\n{result.archived_count:,} audit entries of over {result.days_to_keep} days moved into an archive:"
    )
    for found in result.archives:
        manifest = json.loads((directory / found.manifest).read_bytes())
        if sha256((directory / found.file).read_bytes()).hexdigest() != manifest["sha256"]:
            raise ServiceError(f"The archive {found.file} is not what its manifest says.")
        _say(console, f"  {found.file}, of which {found.manifest.rpartition('/')[2]} beside it says:")
        for name in ("count", "bytes", "first_at", "last_at", "sha256"):
            _say(console, f"    {name:<9} {manifest[name]}{' (read again: the same)' if name == 'sha256' else ''}")


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=f"\n{title}", title_justify="left")


def _say_failed(console: Console, what: str, task: Ended) -> None:
    _say(console, f"{what} is {task.status}: {task.error_message}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
