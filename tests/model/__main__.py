"""``python -m tests.model [WORD…]``: take each guard out and see its test go red."""

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.console import Console

from tests.model.engine_guards import ENGINE_GUARDS
from tests.model.guards import GUARDS
from tests.model.guards_api import API_GUARDS
from tests.model.life_guards import LIFE_GUARDS
from tests.model.mutation import is_green, is_killed
from tests.model.queue_guards import QUEUE_GUARDS
from tests.model.worker_guards import WORKER_GUARDS

_AT_A_TIME = 2


def main(
    words: Annotated[list[str] | None, typer.Argument(help="Only guards with one of these words in them.")] = None,
) -> None:
    """Try every guard's test without the guard; leave with 1 if a guard could go unnoticed."""
    console = Console()
    every = (*GUARDS, *QUEUE_GUARDS, *LIFE_GUARDS, *ENGINE_GUARDS, *WORKER_GUARDS, *API_GUARDS)
    chosen = [guard for guard in every if not words or any(word in guard.guard for word in words)]
    tests = {guard.test: guard for guard in chosen}
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        red = [test for test, is_fine in zip(tests, pool.map(is_green, tests.values()), strict=True) if not is_fine]
    red = [test for test in red if not is_green(tests[test])]  # once more, alone: it may have been the machine's fault
    if red:
        console.print(f"[red]red with every guard in place[/]: {', '.join(red)}")
        raise typer.Exit(2)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        survivors = 0
        for guard, was_killed in zip(chosen, pool.map(is_killed, chosen), strict=True):
            survivors += not was_killed
            console.print(f"{'killed  ' if was_killed else '[red]survived[/]'}  {guard.guard}  ({guard.test})")
    console.print(f"{len(chosen) - survivors} of {len(chosen)} mutants killed")
    raise typer.Exit(bool(survivors))


if __name__ == "__main__":
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(main)
    command()
