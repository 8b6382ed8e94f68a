# /// script
# dependencies = ["taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop==0.22.1"]
# ///
"""taskiq on a Redis list, 100 jobs at a time. It keeps no history, and no result here."""

import asyncio
import json
import sys
import time

sys.path.pop(0)  # this file has the library's name

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker


async def drain(jobs: int, url: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    broker = ListQueueBroker(url)
    finished, done = asyncio.Event(), 0

    @broker.task
    async def noop() -> dict[str, bool]:
        nonlocal done
        done += 1
        if done == jobs:
            finished.set()
        return {"ok": True}

    await broker.startup()
    for at in range(0, jobs, 1000):
        await asyncio.gather(*(noop.kiq() for _ in range(min(1000, jobs - at))))
    before = time.perf_counter()
    serving = asyncio.create_task(run_receiver_task(broker, max_async_tasks=100, max_prefetch=100))
    await finished.wait()
    seconds = time.perf_counter() - before
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return {"jobs_s": jobs / seconds, "seconds": seconds}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(drain(int(sys.argv[2]), sys.argv[3]))))
