# /// script
# dependencies = ["celery[redis]==5.7.0"]
# ///
"""celery on Redis, prefork with one process per core, results ignored. It keeps no history."""

import json
import multiprocessing
import os
import sys
import threading
import time

sys.path.pop(0)  # this file has the library's name

from celery import Celery

context = multiprocessing.get_context("fork")
done = context.Value("q", 0)
app = Celery("bench", broker=sys.argv[3])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=100, worker_redirect_stdouts=False)


@app.task(name="noop")
def noop() -> None:
    """Do nothing, and be counted."""
    with done.get_lock():
        done.value += 1


def watch(jobs: int) -> None:
    """Time from the first job, since the start takes a second, to the last; print that, and end every process."""
    while not done.value:
        time.sleep(0.0005)
    before = time.perf_counter()
    while done.value < jobs:
        time.sleep(0.002)
    seconds = time.perf_counter() - before
    print(json.dumps({"jobs_s": jobs / seconds, "seconds": seconds}), flush=True)
    os.killpg(0, 9)


if __name__ == "__main__":
    os.setpgrp()
    total = int(sys.argv[2])
    with app.connection_for_write() as connection, connection.channel() as channel:
        producer = app.amqp.Producer(channel)
        for _ in range(total):
            noop.apply_async(producer=producer)
    threading.Thread(target=watch, args=(total,), daemon=True).start()
    app.Worker(pool="prefork", concurrency=os.cpu_count(), loglevel="ERROR", without_heartbeat=True).start()
