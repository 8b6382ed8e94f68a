"""Memory: Redis bytes a waiting job takes, and what a worker process holds after half and after all the jobs."""

import gc

import psutil

from app.installation import Installation
from app.queue import keys
from tests.bench.trials.house import NOOP, Terms, fill, open_house, worker_in


async def run(terms: Terms) -> dict[str, float]:
    """Accept ``jobs`` jobs and drain them in two halves."""
    async with open_house(terms) as house:
        before = await _used(house)
        half = terms.jobs // 2
        await fill(house, NOOP, half)
        used = await _used(house) - before
        first = await _rss_after_drain(house, terms)
        await fill(house, NOOP, terms.jobs - half)
        last = await _rss_after_drain(house, terms)
        return {"redis_bytes_job": used / half, "rss_mb": last, "grown_mb": last - first}


async def _used(house: Installation) -> int:
    """Return the bytes that Redis uses, without the event stream: that is trimmed, and not a job's."""
    total: int = (await house.redis.info("memory"))["used_memory"]
    return total - (await house.redis.memory_usage(keys.EVENTS) or 0)


async def _rss_after_drain(house: Installation, terms: Terms) -> float:
    await worker_in(house, slots=terms.slots, burst=True).async_run()
    gc.collect()
    rss: int = psutil.Process().memory_info().rss
    return rss / 2**20
