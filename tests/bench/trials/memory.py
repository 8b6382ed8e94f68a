"""Memory: Redis bytes a waiting job takes, and what a worker's own process holds after half and after all the jobs."""

import asyncio

import psutil

from app.installation import Installation
from app.queue import keys
from tests.bench.trials.house import NOOP, QUEUE, Terms, fill, open_house, process
from workers.pulse import BEAT_S

_LOOK_S = 0.2


async def run(terms: Terms) -> dict[str, float]:
    """Accept ``jobs`` jobs, and let a worker process drain them in two halves."""
    async with open_house(terms) as house:
        before = await _used(house)
        half = terms.jobs // 2
        await fill(house, NOOP, half)
        used = await _used(house) - before
        async with process(terms, "serving") as worker:
            watched = psutil.Process(worker.pid)
            first, _ = await _rss_after_drain(house, watched)
            await fill(house, NOOP, terms.jobs - half)
            last, at_work = await _rss_after_drain(house, watched)
        return {"redis_bytes_job": used / half, "rss_mb": last, "grown_mb": last - first, "rss_at_work_mb": at_work}


async def _used(house: Installation) -> int:
    """Return the bytes that Redis uses, without the event stream: that is trimmed, and not a job's."""
    total: int = (await house.redis.info("memory"))["used_memory"]
    return total - (await house.redis.memory_usage(keys.EVENTS) or 0)


async def _rss_after_drain(house: Installation, watched: psutil.Process) -> tuple[float, float]:
    """Wait until nothing waits or runs; return MB of the worker at rest, and the most that was seen before."""
    most = 0
    while any(queue.ready or queue.running for queue in await house.queue.stats([QUEUE])):
        most = max(most, watched.memory_info().rss)
        await asyncio.sleep(_LOOK_S)
    await asyncio.sleep(2 * BEAT_S)  # with the beat it gives back what work has left
    return watched.memory_info().rss / 2**20, most / 2**20
