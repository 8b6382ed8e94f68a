"""``python -m tests.bench [--quick]``: measure, print one table, write bench.json."""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.embedded import EmbeddedRedis

JOBS = 20_000
ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. ``spread`` is the distance from the least to the most, as a part of the median."""

    name: str
    value: float
    unit: str
    spread: float | None = None
    target: float | None = None
    reached: bool | None = None


def measure_drain(jobs: int, rounds: int, progress: Progress) -> list[Figure]:
    """Drain with every peer in turn, ``rounds`` times; ratios are between the medians."""
    rates: dict[str, list[float]] = {"ours": [], "arq": []}
    task = progress.add_task("drain", total=rounds * len(rates))
    for _ in range(rounds):
        for peer, measured in rates.items():
            measured.append(_drain_once(peer, jobs))
            progress.advance(task)
    medians = {peer: statistics.median(measured) for peer, measured in rates.items()}
    spreads = {peer: (max(measured) - min(measured)) / medians[peer] for peer, measured in rates.items()}
    ratio = medians["ours"] / medians["arq"]
    return [
        Figure(name="drain, full history in SQLite", value=medians["ours"], unit="jobs/s", spread=spreads["ours"]),
        Figure(name="drain, tuned arq, no history", value=medians["arq"], unit="jobs/s", spread=spreads["arq"]),
        Figure(name="drain, ours to tuned arq", value=ratio, unit="×", target=5.0, reached=ratio >= 5.0),
    ]


def _drain_once(peer: str, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as directory, EmbeddedRedis() as redis:
        command = [sys.executable, "-m", "tests.bench.drain", peer, str(jobs), redis.url, directory]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One round of fewer jobs: minutes less, more noise.")] = False,
    out: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench.json"),
) -> None:
    """Measure every figure beside its peers in one run, and print one table."""
    console = Console()
    with Progress(console=console, transient=True) as progress:
        figures = measure_drain(JOBS // 4 if quick else JOBS, 1 if quick else ROUNDS, progress)
    out.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    console.print(_table(figures))


def _table(figures: list[Figure]) -> Table:
    table = Table("figure", "value", "unit", "spread", "target", "reached")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.value:,.2f}" if figure.value < 100 else f"{figure.value:,.0f}",
            figure.unit,
            "" if figure.spread is None else f"{figure.spread:.0%}",
            "" if figure.target is None else f"≥ {figure.target:g}",
            {None: "", True: "yes", False: "no"}[figure.reached],
        )
    return table


if __name__ == "__main__":
    typer.run(main)
