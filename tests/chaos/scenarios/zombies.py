"""Zombies: a worker that stops for longer than its lease, and then goes on as if nothing had been."""

import asyncio
from pathlib import Path

from tests.chaos.bulk import submit_many
from tests.chaos.checker import Fault, check
from tests.chaos.figure import Figure
from tests.chaos.history import read_runs
from tests.chaos.stage import Stage, open_stage
from tests.support.waiting import eventually


async def zombies(
    directory: Path, *, rounds: int, jobs: int, stop_s: float = 15.0, lease_s: float = 9.0
) -> list[Figure]:
    """Stop a worker with ``jobs`` jobs until another has completed them; let it go on, and try to settle each."""
    tries = 0
    async with open_stage(directory, apis=0, workers=2, slots=jobs, lease_s=lease_s) as stage:
        stage.workers[0].start()
        await eventually(lambda: stage.workers[0].said("worker_started"), within=60)
        for _ in range(rounds):
            tries += await _raise_zombies(stage, jobs, stop_s)
        await stage.drained(60)
        history = await stage.history()
        faults: list[Fault] = check(history)
    stale = [fault for fault in faults if fault.rule in {"stale_write", "completed_twice", "changed_after_end"}]
    return [
        Figure(name="zombies, attempts that went on after they were lost", value=tries, unit="tries"),
        Figure(name="zombies, stale writes", value=len(stale), unit="writes", target=0),
        Figure(name="zombies, other broken promises", value=len(faults) - len(stale), unit="faults", target=0),
    ]


async def _raise_zombies(stage: Stage, jobs: int, stop_s: float) -> int:
    zombie, heir = stage.workers
    ids = set(await submit_many(stage, jobs, first_wait_s=stop_s - 0.2))
    await eventually(lambda: sum(run.job_id in ids for run in read_runs(stage.ledger)) == jobs, within=30)
    stage.strike(zombie, "stop")
    before = heir.said("worker_started")
    heir.start()
    await eventually(lambda: heir.said("worker_started") > before, within=60)
    await asyncio.sleep(stop_s)
    await stage.drained(60)
    stage.strike(zombie, "continue")
    continued_at = stage.strikes[-1].at
    await eventually(lambda: _ended(stage, ids, continued_at) == jobs, within=30)
    stage.strike(heir, "terminate")
    await eventually(lambda: heir.exit_code is not None, within=45)
    return jobs


def _ended(stage: Stage, ids: set[str], since: float) -> int:
    runs = (run for run in read_runs(stage.ledger) if run.job_id in ids and run.attempt == 1)
    return sum(run.ended_at is not None and run.ended_at >= since for run in runs)
