"""Drain: jobs a second from the worker's start to its end, every one accepted, started and settled in SQL."""

import time

import psutil

from tests.bench.trials.house import NOOP, Terms, fill, open_house, settle_in, worker_in


async def run(terms: Terms) -> dict[str, float]:
    """Drain ``jobs`` no-op jobs with one worker process."""
    async with open_house(terms) as house:
        await settle_in(house)
        await fill(house, NOOP, terms.jobs)
        worker = worker_in(house, slots=terms.slots, burst=True)
        before, spent = time.perf_counter(), time.process_time()
        await worker.async_run()
        seconds, cpu = time.perf_counter() - before, time.process_time() - spent
        assert worker.jobs_complete == terms.jobs, worker.jobs_complete
        rss = psutil.Process().memory_info().rss / 2**20
        return {"jobs_s": terms.jobs / seconds, "cpu_us": cpu / terms.jobs * 1e6, "rss_mb": rss}
