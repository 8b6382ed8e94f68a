# /// script
# dependencies = ["rq==3.0.0"]
# ///
"""rq with its SimpleWorker, which forks no process per job; results kept for a second. It keeps no history."""

import json
import sys
import time

sys.path.pop(0)  # this file has the library's name

from redis import Redis
from rq import Queue, SimpleWorker


def drain(jobs: int, url: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    redis = Redis.from_url(url)
    queue = Queue(connection=redis)
    queue.enqueue_many([Queue.prepare_data("time.monotonic", result_ttl=1) for _ in range(jobs)])
    worker = SimpleWorker([queue], connection=redis)
    before = time.perf_counter()
    worker.work(burst=True, logging_level="ERROR")
    seconds = time.perf_counter() - before
    assert not queue.count
    assert not queue.failed_job_registry.count
    return {"jobs_s": jobs / seconds, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(drain(int(sys.argv[2]), sys.argv[3])))
