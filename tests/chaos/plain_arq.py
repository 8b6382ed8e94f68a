"""Plain arq under the same load and the same kills: enqueued by a client, run by ``arq.Worker`` as it comes.

A job marks its completion itself, in the ledger, as people do who wire arq to a database of their own.
Its history must show faults: a harness that finds none here has no bite.
``python -m tests.chaos.plain_arq worker REDIS_URL LEDGER`` is a worker, ``… load …`` the load.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func
from redis.exceptions import RedisError

from tests.chaos.checker import accepted, check
from tests.chaos.client import load
from tests.chaos.harness import WIDTH, Verdict, asked_of, strike_through
from tests.chaos.history import Ask, Change, History, Row, Run, read_clients, read_runs
from tests.chaos.ledger import write_entry
from tests.chaos.stage import Member, Stage

_MODULE = "tests.chaos.plain_arq"
_PAUSE_S = 0.05
_LOOK_S = 0.1


class PlainClient:
    """Enqueues as arq's documentation does."""

    def __init__(self, redis: ArqRedis, ledger: Path) -> None:
        self._redis = redis
        self._ledger = ledger

    async def submit(self, mark: str, *, queue: str, priority: int, wait_s: float, fail_times: int) -> str | None:
        """Enqueue one step; neither queues nor priorities nor retries of plain errors are arq's."""
        asked_at, status, job_id = time.time(), 0, None
        try:
            job = await self._redis.enqueue_job("step", mark, wait_s)
            status, job_id = 202, job.job_id if job else None
        except (RedisError, OSError):
            await asyncio.sleep(_PAUSE_S)
        write_entry(self._ledger, "ask", mark=mark, asked_at=asked_at, status=status, job_id=job_id)
        return job_id

    async def cancel(self, job_id: str) -> int:
        """Cancel nothing: the load asks for no cancels."""
        raise NotImplementedError(job_id)


async def arq_storm(stage: Stage, *, workers: int, jobs: int, kills: int, seed: int, drain_s: float) -> Verdict:
    """Run the load against arq alone; ``stage`` brings Redis, and processes of its own are never started."""
    stage.apis, ledger = [], str(stage.ledger)
    arguments = [_MODULE, "worker", stage.redis.url, ledger]
    stage.workers = [
        Member(f"arq{number}", arguments, dict(os.environ), stage.directory) for number in range(1, workers + 1)
    ]
    for member in stage.workers:
        member.start()
    client = stage.load(_MODULE, "load", stage.redis.url, str(asked_of(stage)), str(seed), str(jobs))
    began = time.monotonic()
    last_kill = await strike_through(stage, client, jobs=jobs, kills=kills, seed=seed)
    loaded = time.monotonic()
    while not _is_drained(stage) and time.monotonic() - last_kill < drain_s:
        stage.restart_dead()
        await asyncio.sleep(_LOOK_S)
    drained_s = time.monotonic() - last_kill if _is_drained(stage) else float("inf")
    history = _history(stage)
    return Verdict(history=history, faults=check(history), drained_s=drained_s, rate=jobs / (loaded - began))


def _is_drained(stage: Stage) -> bool:
    asks, _ = read_clients([asked_of(stage)])
    ended = {run.job_id for run in read_runs(stage.ledger) if run.ended_at is not None}
    return {ask.job_id for ask in asks if ask.job_id} <= ended


def _history(stage: Stage) -> History:
    """Tell the history in our terms: a job has completed when it said so, each time that it said so."""
    asks, _ = read_clients([asked_of(stage)])
    runs = read_runs(stage.ledger)
    by_job = {job_id: [run for run in runs if run.job_id == job_id] for job_id in {run.job_id for run in runs}}
    told = accepted(History(asks=asks))
    changes = [change for job_id, ask in told.items() for change in _changes(ask, by_job.get(job_id, ()))]
    rows = [_row(ask, by_job.get(job_id, ())) for job_id, ask in told.items()]
    return History(asks=asks, runs=runs, changes=changes, rows=rows, strikes=tuple(stage.strikes))


def _row(ask: Ask, runs: Sequence[Run]) -> Row:
    ended = [run for run in runs if run.ended_at is not None]
    status = "completed" if ended else "running" if runs else "pending"
    last = ended[-1].attempt if ended else None
    return Row(job_id=str(ask.job_id), mark=ask.mark, status=status, attempts=last or len(runs), result_attempt=last)


def _changes(ask: Ask, runs: Sequence[Run]) -> list[Change]:
    """Tell what a row would have gone through: each state is status, attempts and claim."""
    states: list[tuple[str, int, str | None, float]] = [("pending", 0, None, ask.asked_at)]
    for number, run in enumerate(runs, 1):
        states.append(("running", number, str(number), run.began_at))
        if run.ended_at is not None:
            states.append(("completed", number, str(number), run.ended_at))
    return [
        Change(
            seq=seq,
            job_id=str(ask.job_id),
            before=before[0],
            after=str(after[0]),
            attempts_before=before[1],
            attempts=after[1],
            claim_before=before[2],
            claim=after[2],
            at=after[3],
        )
        for seq, (before, after) in enumerate(pairwise([(None, 0, None, 0.0), *states]))
    ]


async def _work(redis_url: str, ledger: str) -> None:
    async def step(ctx: dict[Any, Any], _mark: str, wait_s: float) -> None:
        who = {"job_id": ctx["job_id"], "attempt": ctx["job_try"], "pid": os.getpid()}
        write_entry(Path(ledger), "begin", **who, fence=ctx["job_try"], claim="")
        await asyncio.sleep(wait_s)
        write_entry(Path(ledger), "end", **who)

    worker = Worker([func(step, name="step")], redis_settings=RedisSettings.from_dsn(redis_url))
    await worker.async_run()


async def _load(redis_url: str, asked: str, seed: str, jobs: str) -> None:
    redis = await create_pool(RedisSettings.from_dsn(redis_url))
    await load(PlainClient(redis, Path(asked)), seed=int(seed), jobs=int(jobs), width=WIDTH, cancels=0.0)
    await redis.aclose(close_connection_pool=True)


if __name__ == "__main__":
    uvloop.run(_work(*sys.argv[2:]) if sys.argv[1] == "worker" else _load(*sys.argv[2:]))
