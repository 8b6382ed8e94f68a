"""Backlog: the drain of the first ``jobs`` jobs of a backlog of ``rows``, and what its claims take."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.installation import Installation
from tests.bench.trials.house import NOOP, Terms, fill, open_house, percentile, settle_in, until, worker_in


async def run(terms: Terms) -> dict[str, float]:
    """Accept ``rows`` jobs, then time the first ``jobs``."""
    async with open_house(terms) as house:
        await settle_in(house)  # else the worker begins by walking over the whole backlog
        await fill(house, NOOP, terms.rows)
        worker = worker_in(house, slots=terms.slots)
        claims: list[float] = []
        house.queue.claim = _timed(house.queue.claim, claims)  # type: ignore[assignment,method-assign]  # a look from inside
        before, spent, asked = time.perf_counter(), time.process_time(), await _redis_cpu(house)
        serving = asyncio.create_task(worker.async_run())
        await until(lambda: worker.jobs_complete >= terms.jobs)
        seconds, spent = time.perf_counter() - before, time.process_time() - spent
        asked = await _redis_cpu(house) - asked
        worker.stop()
        await serving
        return {
            "jobs_s": terms.jobs / seconds,
            "claim_p99_ms": percentile(claims, 0.99),
            "cpu_us": spent / terms.jobs * 1e6,
            "redis_cpu_us": asked / terms.jobs * 1e6,
        }


async def _redis_cpu(house: Installation) -> float:
    told = await house.redis.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


def _timed(call: Callable[..., Awaitable[Any]], taken: list[float]) -> Callable[..., Awaitable[Any]]:
    async def timed(*args: Any, **options: Any) -> Any:
        before = time.perf_counter()
        answer = await call(*args, **options)
        taken.append((time.perf_counter() - before) * 1000)
        return answer

    return timed
