"""Time and memory of each job at a realistic size: ``python -m tests.bench.sizes [GROUP…] [--scale 0.1]``.

Each job runs on a worker of its own, whose loop is asked every 5 ms how late it is; so is, beside it, the loop of a
process that does nothing else: on a busy machine that one is late too. Groups of texts need the shared texts beside
the checkout.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.log import configure_logging
from tests.bench import edm_matching
from tests.bench.cases import GROUPS
from tests.bench.stage import Outcome, Stage
from workers.families.edm import minilm

_WIDTH = 140
_COLUMNS = {
    "seconds": "s",
    "cpu_s": "CPU s",
    "rss_mb": "worker MB",
    "children_mb": "children MB",
    "lag_p99_ms": "lag p99 ms",
    "idle_p99_ms": "idle p99 ms",
    "lag_max_ms": "lag most ms",
    "cancel_s": "cancel s",
}


def main(
    groups: Annotated[list[str] | None, typer.Argument(help=f"Which of {', '.join(GROUPS)}. None means all.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1, help="The share of the full size.")] = 1.0,
) -> None:
    """Measure every job and print one table."""
    if unknown := set(groups or ()) - set(GROUPS):
        raise typer.BadParameter(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    configure_logging("WARNING", "json")
    console, stage = Console(width=_WIDTH), Stage(None, Path())
    for name in groups or GROUPS:
        if reason := _missing(name):
            console.print(f"{name}: left out, {reason}")
            continue
        with console.status(name):
            measured = stage.run("stocking", group=name, scale=scale)
        console.print(_table(name, scale, measured))


def _missing(name: str) -> str | None:
    if GROUPS[name].needs_texts and not edm_matching.DATA.is_dir():
        return "the shared texts are not beside this checkout"
    if GROUPS[name].settings.get("edm_matcher") == "embeddings" and not minilm.is_installed():
        return "the extra embeddings is not installed"
    return None


def _table(name: str, scale: float, measured: Outcome) -> Table:
    group = GROUPS[name]
    table = Table("job", *_COLUMNS.values(), title=f"{group.size}{'' if scale == 1 else f', × {scale:g}'}")
    for number, case in enumerate(group.cases):
        model = getattr(case.params, "model_name", "")
        values = (measured.get(f"{number} {column}") for column in _COLUMNS)
        told = ("" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}" for value in values)
        table.add_row(f"{case.job_type.kind} {model}".strip(), *told)
    return table


if __name__ == "__main__":
    typer.run(main)
