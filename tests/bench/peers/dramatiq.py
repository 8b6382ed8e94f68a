# /// script
# dependencies = ["dramatiq[redis]==2.2.1"]
# ///
"""dramatiq on Redis, 100 threads, no results. It keeps no history."""

import json
import sys
import threading
import time

sys.path.pop(0)  # this file has the library's name

import dramatiq
from dramatiq.brokers.redis import RedisBroker


def drain(jobs: int, url: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    finished, lock, done = threading.Event(), threading.Lock(), 0

    @dramatiq.actor
    def noop() -> None:
        nonlocal done
        with lock:
            done += 1
            if done == jobs:
                finished.set()

    for _ in range(jobs):
        noop.send()
    worker = dramatiq.Worker(broker, worker_threads=100)
    before = time.perf_counter()
    worker.start()
    finished.wait()
    seconds = time.perf_counter() - before
    worker.stop()
    return {"jobs_s": jobs / seconds, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(drain(int(sys.argv[2]), sys.argv[3])))
