"""``python -m tests.chaos [SCENARIO…]``: run scenarios in their long form, print figures, write chaos.json."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from app.log import configure_logging
from tests.chaos.checker import Fault
from tests.chaos.figure import Figure
from tests.chaos.harness import storm
from tests.chaos.plain_arq import arq_storm
from tests.chaos.scenarios import crashes, deploys, links, outages, races, soak, zombies
from tests.chaos.scenarios.poison import poison
from tests.chaos.scenarios.rescue import false_rescues, rescue
from tests.chaos.scenarios.schedulers import schedulers
from tests.chaos.stage import open_stage
from tests.support.postgres_server import running_postgres

console = Console()
Scenario = Callable[[Path], Awaitable[list[Figure]]]

_FORMS = {"postgresql": (50_000, 200), "sqlite": (10_000, 60)}  # jobs and kills of the long form
_ON_POSTGRESQL = {"postgresql", "sql-out", "sql-links", "sql-schedulers"}


class Programme:
    """The scenarios by name, in the order in which they are played."""

    def __init__(self, *, seed: int, jobs: int | None, kills: int | None, minutes: float, stack: ExitStack) -> None:
        self._seed, self._jobs, self._kills, self._stack = seed, jobs, kills, stack
        self._databases: list[str] = []
        self.scenarios: dict[str, Scenario] = {
            "sqlite": lambda at: self._storm(at, "sqlite"),
            "postgresql": lambda at: self._storm(at, "postgresql"),
            "arq": self._arq,
            "rescue": lambda at: rescue(at, rounds=10, jobs=20, seed=seed),
            "false-rescues": lambda at: false_rescues(at, rounds=3, jobs=50),
            "zombies": lambda at: zombies.zombies(at, rounds=6, jobs=100),
            "flushall": lambda at: outages.redis_emptied(at, waiting=15_000, running=50),
            "redis-empty": lambda at: outages.redis_emptied(at, waiting=15_000, running=50, restart=True),
            "redis-out": outages.redis_out,
            "sql-out": lambda at: outages.sql_out(at, database_url=self._postgres()),
            "power": lambda at: outages.power_lost(at, jobs=5000),
            "poison": lambda at: poison(at, good=2000, each=3),
            "crashes": lambda at: crashes.crashes(at, times=50, seed=seed),
            "races": lambda at: races.races(at, count=5000, seed=seed),
            "deploys": lambda at: deploys.deploys(at, rounds=10),
            "links": self._links,
            "sql-links": lambda at: self._links(at, database_url=self._postgres()),
            "schedulers": self._schedulers,
            "sql-schedulers": lambda at: self._schedulers(at, database_url=self._postgres()),
            "soak": lambda at: soak.soak(at, minutes=minutes),
        }

    async def _storm(self, directory: Path, database: Literal["sqlite", "postgresql"]) -> list[Figure]:
        jobs, kills = _FORMS[database]
        url = self._postgres() if database == "postgresql" else ""
        async with open_stage(directory, apis=2, workers=3, database_url=url, report=console.print) as stage:
            verdict = await storm(
                stage, jobs=self._jobs or jobs, kills=self._kills or kills, seed=self._seed, patience_s=900
            )
        _show(verdict.faults)
        return verdict.figures(f"storm on {database}")

    async def _links(self, directory: Path, database_url: str = "") -> list[Figure]:
        return await links.links(directory, times=40, seed=self._seed, database_url=database_url, report=console.print)

    async def _schedulers(self, directory: Path, database_url: str = "") -> list[Figure]:
        return await schedulers(
            directory, days=7, kills=40, seed=self._seed, database_url=database_url, report=console.print
        )

    async def _arq(self, directory: Path) -> list[Figure]:
        async with open_stage(directory, report=console.print) as stage:
            verdict = await arq_storm(
                stage, workers=3, jobs=self._jobs or 5000, kills=self._kills or 60, seed=self._seed, drain_s=60
            )
        rules = {"lost", "unfinished", "completed_twice"}
        bites = sum(fault.rule in rules for fault in verdict.faults)
        name = "the same kills on plain arq: jobs not completed within 60 s, or completed twice"
        return [Figure(name=name, value=bites, unit="jobs", target=1, best="most")]

    def _postgres(self) -> str:
        return self._databases.pop()

    def start_servers(self, wanted: Sequence[str]) -> None:
        """Start what the wanted scenarios need: servers belong to the main thread and to no event loop."""
        if count := sum(name in _ON_POSTGRESQL for name in wanted):
            server = self._stack.enter_context(running_postgres(None))
            self._databases = [server.create_database() for _ in range(count)]


def _show(faults: Sequence[Fault]) -> None:
    for fault in faults[:20]:
        console.print(f"[red]{fault.rule}[/] {fault.job_id}: {fault.detail}")


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Scenarios; all but the soak if none is named.")] = None,
    *,
    jobs: Annotated[int | None, typer.Option(help="Jobs of the storms.")] = None,
    kills: Annotated[int | None, typer.Option(help="Kills of the storms.")] = None,
    seed: Annotated[int, typer.Option(help="What is killed, and when, follows from it.")] = 1,
    database: Annotated[str | None, typer.Option(help="Storm on sqlite or postgresql alone.")] = None,
    minutes: Annotated[float, typer.Option(help="How long the soak lasts.")] = 30.0,
    out: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("chaos.json"),
) -> None:
    """Play scenarios, print one table, and leave with 1 if a target was missed."""
    configure_logging("ERROR")
    figures: list[Figure] = []
    with ExitStack() as stack:
        programme = Programme(seed=seed, jobs=jobs, kills=kills, minutes=minutes, stack=stack)
        known = programme.scenarios
        wanted = names or ([database] if database else [name for name in known if name != "soak"])
        if unknown := set(wanted) - set(known):
            raise typer.BadParameter(f"There is no scenario {', '.join(unknown)}; known are: {', '.join(known)}.")
        programme.start_servers(wanted)
        for name in wanted:
            console.rule(name)
            with tempfile.TemporaryDirectory(prefix=f"chaos-{name}-") as directory:
                figures += asyncio.run(_played(known[name], Path(directory), name))
            out.write_text(json.dumps([_json(figure) for figure in figures], indent=2) + "\n")
    console.print(_table(figures))
    raise typer.Exit(int(any(figure.reached is False for figure in figures)))


async def _played(scenario: Scenario, directory: Path, name: str) -> list[Figure]:
    try:
        figures = await scenario(directory)
    except Exception:  # the others are worth playing all the same
        console.print_exception()
        return [Figure(name=f"{name}: broke off", value=1, unit="scenario", target=0)]
    console.print(_table(figures))
    return figures


def _json(figure: Figure) -> dict[str, object]:
    return {
        **asdict(figure),
        "value": figure.value if figure.value != float("inf") else None,
        "reached": figure.reached,
    }


def _table(figures: list[Figure]) -> Table:
    table = Table("figure", "value", "unit", "target", "reached")
    for figure in figures:
        sign = {"least": "≤", "most": "≥"}[figure.best]
        table.add_row(
            figure.name,
            f"{figure.value:,.2f}" if figure.value % 1 else f"{figure.value:,.0f}",
            figure.unit,
            "" if figure.target is None else f"{sign} {figure.target:g}",
            {None: "", True: "yes", False: "no"}[figure.reached],
        )
    return table


if __name__ == "__main__":
    typer.run(main)
