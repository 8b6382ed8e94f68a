"""Drain: how many no-op jobs a second one worker process finishes, measured in a process of its own.

``python -m tests.bench.drain PEER JOBS REDIS_URL DIRECTORY`` prints one number. ``ours`` accepts, starts and
settles every job in SQLite; ``arq`` is arq itself with max_jobs=100 and poll_delay=0.01 and keeps no history.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker as ArqWorker
from arq.worker import func

from app.installation import open_installation
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Family, JobType, TaskType
from app.jobs.fields import Params, Result
from app.lifecycle import Order
from app.log import configure_logging
from app.settings import Settings
from workers.collector import calm_collector
from workers.context import Context
from workers.worker import Worker

OUR_SLOTS = 400
ARQ_SLOTS = 100
_ACCEPT = 1000


class Nothing(Params):
    """No params."""


class Done(Result):
    """As little as a result can say."""

    ok: bool = True


NOOP = JobType(
    kind="bench.noop", summary="Nothing.", params=Nothing, result=Done, queue="bench", task_type=TaskType.SYSTEM
)


async def noop(_ctx: Context, _params: Nothing) -> Done:
    """Do nothing."""
    return Done()


async def arq_noop(_ctx: dict[Any, Any]) -> dict[str, bool]:
    """Do nothing, for arq."""
    return {"ok": True}


async def drain_ours(jobs: int, redis_url: str, directory: Path) -> float:
    """Return jobs a second from the worker's start to its end, history included."""
    catalogue = Catalogue([Family(name="bench", summary="Nothing.", job_types=(NOOP,))])
    settings = Settings(_env_file=None, redis_url=redis_url, data_dir=directory)
    async with open_installation(settings, catalogue) as house:
        for at in range(0, jobs, _ACCEPT):
            count = min(_ACCEPT, jobs - at)
            await house.lifecycle.submit([Order(job_type=NOOP, params=Nothing(), owner="bench")] * count)
        functions = {NOOP.kind: noop}
        worker = Worker(house, functions=functions, queues=["bench"], max_jobs=OUR_SLOTS, burst=True)
        calm_collector()  # as every worker process does
        rate = await _timed(jobs, worker.async_run)
        assert worker.jobs_complete == jobs, worker.jobs_complete
        return rate


async def drain_arq(jobs: int, redis_url: str, _directory: Path) -> float:
    """Return jobs a second of arq, tuned."""
    settings = RedisSettings.from_dsn(redis_url)
    redis = await create_pool(settings)
    for _ in range(0, jobs, _ACCEPT):
        await asyncio.gather(*(redis.enqueue_job("noop") for _ in range(_ACCEPT)))
    worker = ArqWorker(
        [func(arq_noop, name="noop")],  # type: ignore[arg-type]  # its protocol wants *args
        redis_settings=settings,
        max_jobs=ARQ_SLOTS,
        poll_delay=0.01,
        burst=True,
        handle_signals=False,
    )
    rate = await _timed(jobs, worker.async_run)
    assert worker.jobs_complete == jobs, worker.jobs_complete
    await worker.close()
    await redis.aclose(close_connection_pool=True)
    return rate


async def _timed(jobs: int, run: Callable[[], Awaitable[None]]) -> float:
    before = time.perf_counter()
    await run()
    return jobs / (time.perf_counter() - before)


PEERS = {"ours": drain_ours, "arq": drain_arq}


def main(peer: str, jobs: str, redis_url: str, directory: str) -> None:
    """Measure one peer once."""
    configure_logging("WARNING", "json")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(PEERS[peer](int(jobs), redis_url, Path(directory))))


if __name__ == "__main__":
    main(*sys.argv[1:])
