# /// script
# dependencies = ["procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"]
# ///
"""procrastinate on PostgreSQL, 100 jobs at a time. Durable: the queue is the history."""

import asyncio
import json
import sys
import time

sys.path.pop(0)  # this file has the library's name

from procrastinate import App, PsycopgConnector


async def drain(jobs: int, dsn: str) -> dict[str, float]:
    """Return jobs a second from the worker's start to the end of the last job."""
    app = App(connector=PsycopgConnector(conninfo=dsn, max_size=20))

    @app.task(name="noop")
    async def noop() -> dict[str, bool]:
        return {"ok": True}

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for at in range(0, jobs, 1000):
            await noop.batch_defer_async(*({} for _ in range(min(1000, jobs - at))))
        before = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=100, install_signal_handlers=False)
        seconds = time.perf_counter() - before
        counts = await app.job_manager.list_queues_async()
        assert sum(queue["succeeded"] for queue in counts) == jobs, counts
    return {"jobs_s": jobs / seconds, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drain(int(sys.argv[2]), sys.argv[3]))))
