# /// script
# dependencies = ["saq[hiredis]==0.26.4", "typing-extensions", "uvloop==0.22.1"]
# ///
"""saq on Redis, 100 jobs at a time. Results live in Redis for a while; it keeps no history."""

import asyncio
import json
import sys
import time
from typing import Any

sys.path.pop(0)  # this file has the library's name

import uvloop
from saq import Queue, Worker

done = 0


async def noop(_ctx: Any) -> dict[str, bool]:
    """Do nothing."""
    return {"ok": True}


async def drain(jobs: int, url: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    queue = Queue.from_url(url)
    await queue.connect()
    for at in range(0, jobs, 1000):
        await asyncio.gather(*(queue.enqueue("noop") for _ in range(min(1000, jobs - at))))
    finished = asyncio.Event()

    async def count(_ctx: Any) -> None:
        global done  # noqa: PLW0603
        done += 1
        if done == jobs:
            finished.set()

    worker: Any = Worker(queue, functions=[("noop", noop)], concurrency=100, after_process=count, dequeue_timeout=1)
    before = time.perf_counter()
    serving = asyncio.create_task(worker.start())
    await finished.wait()
    seconds = time.perf_counter() - before
    await worker.stop()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return {"jobs_s": jobs / seconds, "seconds": seconds}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(drain(int(sys.argv[2]), sys.argv[3]))))
