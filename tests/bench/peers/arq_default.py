# /// script
# dependencies = ["arq==0.28.0", "redis[hiredis]==5.3.1", "uvloop==0.22.1"]
# ///
"""arq as it comes: ten jobs at a time, a poll every half second. It keeps no history.

``drain JOBS REDIS_URL`` and ``latency JOBS REDIS_URL`` print figures as JSON.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

OPTIONS: dict[str, Any] = {}
PACE_S = 0.3


async def noop(_ctx: dict[Any, Any]) -> dict[str, bool]:
    """Do nothing."""
    return {"ok": True}


async def wait(_ctx: dict[Any, Any]) -> dict[str, bool]:
    """Wait 50 ms."""
    await asyncio.sleep(0.05)
    return {"ok": True}


async def drain(name: str, jobs: int, url: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    settings = RedisSettings.from_dsn(url)
    redis = await create_pool(settings)
    for at in range(0, jobs, 1000):
        await asyncio.gather(*(redis.enqueue_job(name) for _ in range(min(1000, jobs - at))))
    functions = [func(noop, name="noop"), func(wait, name="wait")]  # type: ignore[arg-type]  # its protocol wants *args
    worker = Worker(functions, redis_settings=settings, burst=True, handle_signals=False, **OPTIONS)
    before = time.perf_counter()
    await worker.async_run()
    seconds = time.perf_counter() - before
    assert worker.jobs_complete == jobs, worker.jobs_complete
    await worker.close()
    await redis.aclose(close_connection_pool=True)
    return {"jobs_s": jobs / seconds, "seconds": seconds}


async def latency(jobs: int, url: str) -> dict[str, float]:
    """Return the milliseconds from before the enqueue to the job's first line, on an idle worker."""
    settings = RedisSettings.from_dsn(url)
    redis = await create_pool(settings)
    waits: list[float] = []
    seen = asyncio.Event()

    async def look(_ctx: dict[Any, Any], sent: float) -> None:
        waits.append((time.monotonic() - sent) * 1000)
        seen.set()

    functions = [func(look, name="look")]  # type: ignore[arg-type]  # its protocol wants *args
    worker = Worker(functions, redis_settings=settings, handle_signals=False, **OPTIONS)
    serving = asyncio.create_task(worker.async_run())
    for at in range(jobs):
        await asyncio.sleep(PACE_S + 0.007 * (at % 10))  # off the poll's beat
        seen.clear()
        await redis.enqueue_job("look", time.monotonic())
        await seen.wait()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    waits.sort()
    return {"p50_ms": waits[len(waits) // 2], "p99_ms": waits[int(len(waits) * 0.99)]}


def main(what: str, jobs: str, url: str, *_: str) -> None:
    """Measure once."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if what == "latency":
            print(json.dumps(runner.run(latency(int(jobs), url))))
        else:
            print(json.dumps(runner.run(drain("wait" if what == "short" else "noop", int(jobs), url))))


if __name__ == "__main__":
    main(*sys.argv[1:])
