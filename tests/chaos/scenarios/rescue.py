"""How soon a killed worker's jobs start again, and that a slow worker's do not."""

import asyncio
import random
import statistics
from pathlib import Path

from tests.chaos.bulk import submit_many
from tests.chaos.checker import check
from tests.chaos.figure import Figure
from tests.chaos.history import Run, read_runs
from tests.chaos.stage import Stage, open_stage
from tests.support.waiting import eventually

_START_S = 60.0


async def rescue(directory: Path, *, rounds: int, jobs: int, lease_s: float = 9.0, seed: int = 1) -> list[Figure]:
    """Kill a worker that runs ``jobs`` jobs, ``rounds`` times; measure until each runs again elsewhere."""
    luck, times = random.Random(seed), list[float]()
    async with open_stage(directory, apis=0, workers=2, lease_s=lease_s) as stage:
        stage.workers[0].start()
        await eventually(lambda: stage.workers[0].said("worker_started"), within=_START_S)
        for _ in range(rounds):
            times += await _kill_and_wait(stage, jobs, luck.uniform(0, lease_s / 3))
            stage.workers.reverse()
        await stage.drained(60)
        faults = check(await stage.history())
    return [
        Figure(name="rescue, jobs of killed workers", value=len(times), unit="jobs"),
        Figure(name="rescue, half of them within", value=statistics.median(times), unit="s", target=lease_s * 8.5 / 9),
        Figure(name="rescue, all of them within", value=max(times), unit="s", target=lease_s + 2),
        Figure(name="rescue, broken promises", value=len(faults), unit="faults", target=0),
    ]


async def _kill_and_wait(stage: Stage, jobs: int, after_s: float) -> list[float]:
    doomed, heir = stage.workers
    ids = set(await submit_many(stage, jobs, first_wait_s=600))
    await eventually(lambda: len(_runs_of(stage, ids)) == jobs, within=30)
    before = heir.said("worker_started")
    heir.start()
    await eventually(lambda: heir.said("worker_started") > before, within=_START_S)
    await asyncio.sleep(after_s)  # so that kills fall anywhere between two renewals
    stage.strike(doomed, "kill")
    killed_at = stage.strikes[-1].at
    again = await eventually(lambda: _again(stage, ids), within=60)
    return [run.began_at - killed_at for run in again]


async def _run_all(stage: Stage, jobs: int, wait_s: float) -> None:
    ids = set(await submit_many(stage, jobs, wait_s=wait_s))
    await eventually(lambda: len(_runs_of(stage, ids)) == jobs, within=30)


def _again(stage: Stage, ids: set[str]) -> list[Run] | None:
    again = [run for run in _runs_of(stage, ids) if run.attempt == 2]
    return again if len(again) == len(ids) else None


def _runs_of(stage: Stage, ids: set[str]) -> list[Run]:
    return [run for run in read_runs(stage.ledger) if run.job_id in ids]


async def false_rescues(
    directory: Path, *, rounds: int, jobs: int, stop_s: float = 5.0, lease_s: float = 9.0
) -> list[Figure]:
    """Stop a worker for less than its lease, and let one block its own loop; nobody may take its jobs."""
    async with open_stage(directory, apis=0, workers=2, lease_s=lease_s) as stage:
        for worker in stage.workers:
            worker.start()
        await stage.ready()
        for _ in range(rounds):
            await _run_all(stage, jobs, stop_s + 1)
            stage.strike(stage.workers[0], "stop")
            await asyncio.sleep(stop_s)
            stage.strike(stage.workers[0], "continue")
            await submit_many(stage, jobs, wait_s=lease_s * 1.3)
            await submit_many(stage, 1, block_s=lease_s * 1.3)
            await stage.drained(60 + lease_s)
        history = await stage.history()
    taken = [run for run in history.runs if run.attempt > 1]
    return [
        Figure(name=f"false rescues, after {stop_s:g} s stopped or blocked", value=len(taken), unit="jobs", target=0),
        Figure(name="false rescues, jobs that could have been taken", value=len(history.rows), unit="jobs"),
        Figure(name="false rescues, broken promises", value=len(check(history)), unit="faults", target=0),
    ]
