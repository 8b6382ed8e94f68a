"""``python -m tests.bench [ROW…] [--quick]``: measure, print one table, write bench.json."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.log import configure_logging
from tests.bench.figure import Figure
from tests.bench.rows import QUICK, ROWS, Size
from tests.bench.stage import Stage
from tests.support.postgres_server import NoPostgresError, PostgresUnderTest, running_postgres


def main(
    rows: Annotated[list[str] | None, typer.Argument(help=f"Which rows: {', '.join(ROWS)}. None means all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One round of less: two minutes instead of twenty.")] = False,
    out: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench.json"),
    environments: Annotated[Path, typer.Option(help="Where the peers' environments are kept.")] = Path(".bench"),
) -> None:
    """Measure every figure beside its peers in one run, and print one table.

    Peers are installed into environments of their own at the first run, which needs the network then.
    """
    if unknown := set(rows or ()) - set(ROWS):
        raise typer.BadParameter(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    configure_logging("WARNING", "json")
    console, size = Console(), QUICK if quick else Size()
    figures: list[Figure] = []
    with _postgres() as postgres, _progress(console) as progress:
        stage = Stage(postgres, environments.absolute())
        for name in rows or ROWS:
            task = progress.add_task(name.replace("_", " "), total=None)
            found = list(ROWS[name](stage, replace(size, has_postgres=postgres is not None)))
            progress.remove_task(task)
            figures += found
            console.print(_table(found, name))
            out.write_text(json.dumps([asdict(one) | {"reached": one.is_reached} for one in figures], indent=2) + "\n")


@contextmanager
def _postgres() -> Iterator[PostgresUnderTest | None]:
    try:
        with running_postgres(None, is_durable=True) as server:
            yield server
    except NoPostgresError as error:
        typer.secho(f"Without PostgreSQL: {error}", err=True, fg=typer.colors.YELLOW)
        yield None


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    )


def _table(figures: list[Figure], title: str) -> Table:
    table = Table("figure", "value", "unit", "spread", "target", "reached", title=title.replace("_", " "))
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.value:,.2f}" if figure.value < 100 else f"{figure.value:,.0f}",
            figure.unit,
            "" if figure.spread is None else f"{figure.spread:.0%}",
            "" if figure.target is None else f"{'≤' if figure.is_ceiling else '≥'} {figure.target:g}",
            {None: "", True: "yes", False: "no"}[figure.is_reached],
        )
    return table


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    command()
