# /// script
# dependencies = ["streaq==7.2.0", "uvloop==0.22.1"]
# ///
"""streaq on Redis streams, 100 jobs at a time, results kept for a second. It keeps no history."""

import asyncio
import json
import os
import sys
import time
from typing import Any

sys.path.pop(0)  # this file has the library's name

import uvloop
from streaq import Worker


async def drain(jobs: int, url: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    worker: Any = Worker(redis_url=url, concurrency=100, prefetch=100, handle_signals=False)
    finished, done = asyncio.Event(), 0

    @worker.task(ttl=1)
    async def noop() -> dict[str, bool]:
        nonlocal done
        done += 1
        if done == jobs:
            finished.set()
        return {"ok": True}

    async with worker:
        for at in range(0, jobs, 1000):
            await worker.enqueue_many([noop.enqueue() for _ in range(min(1000, jobs - at))])
    before = time.perf_counter()
    asyncio.get_running_loop().create_task(worker.run_async())  # the process ends before it
    await finished.wait()
    seconds = time.perf_counter() - before
    return {"jobs_s": jobs / seconds, "seconds": seconds}


async def main() -> None:
    """Measure once, and leave without the worker's farewell."""
    print(json.dumps(await drain(int(sys.argv[2]), sys.argv[3])), flush=True)
    os._exit(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
