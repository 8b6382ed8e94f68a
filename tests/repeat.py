"""``python -m tests.repeat [TIMES]``: run what depends on time, kills and turns again and again, to find a flake.

Stops at the first round that fails; what that round printed stays in ``repeat.txt``.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "repeat.txt"
TESTS = (
    "tests/acceptance/test_chaos_checker.py",
    "tests/acceptance/test_chaos_proxy.py",
    "tests/acceptance/test_chaos_scenarios.py",
    "tests/acceptance/test_chaos_storm.py",
    "tests/acceptance/test_poison.py",
    "tests/acceptance/test_service.py",
    "tests/integration/test_api_leaving.py",
    "tests/integration/test_arq_promises.py",  # cron with several workers
    "tests/integration/test_cancelled_writes.py",
    "tests/integration/test_leases.py",
    "tests/integration/test_lifecycle.py",
    "tests/integration/test_lifecycle_adoption.py",
    "tests/integration/test_lifecycle_changes.py",
    "tests/integration/test_lifecycle_rows.py",
    "tests/integration/test_limits.py",
    "tests/integration/test_postgres_defaults.py",
    "tests/integration/test_schedules.py",
    "tests/integration/test_status_model.py",
    "tests/integration/test_suspects.py",
    "tests/integration/test_sweep.py",
    "tests/integration/test_worker.py",
    "tests/integration/test_worker_claims.py",
    "tests/integration/test_writer.py",
    "tests/integration/test_writer_databases.py",
    "tests/integration/test_writer_settles.py",
    "tests/unit/test_closer.py",
    "tests/unit/test_group_commit.py",
)
_COMMAND = (sys.executable, "-m", "pytest", "--numprocesses=auto", "--dist=worksteal", "--durations=10")


def main(times: Annotated[int, typer.Argument(min=1, help="How many rounds.")] = 20) -> None:
    """Run every round as ``make test`` runs it; leave with 1 if one fails."""
    for number in range(1, times + 1):
        began = time.monotonic()
        with OUTPUT.open("w") as output:
            ended = subprocess.run([*_COMMAND, *TESTS], cwd=ROOT, check=False, stdout=output, stderr=subprocess.STDOUT)
        last = OUTPUT.read_text().rstrip().rpartition("\n")[2]
        typer.echo(f"round {number} of {times}: {last.strip('= ')} ({time.monotonic() - began:.0f} s)")
        if ended.returncode:
            typer.echo(f"{number - 1} of {times} rounds passed, and round {number} failed: see {OUTPUT.name}", err=True)
            raise typer.Exit(1)
    typer.echo(f"{times} of {times} rounds passed")


if __name__ == "__main__":
    typer.run(main)
