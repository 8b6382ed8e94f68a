"""Backlog: the drain of the first ``jobs`` jobs of a backlog of ``rows``, and what its claims take."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.bench.trials.house import NOOP, Terms, fill, open_house, percentile, until, worker_in


async def run(terms: Terms) -> dict[str, float]:
    """Accept ``rows`` jobs, then time the first ``jobs``."""
    async with open_house(terms) as house:
        await fill(house, NOOP, terms.rows)
        worker = worker_in(house, slots=terms.slots)
        claims: list[float] = []
        house.queue.claim = _timed(house.queue.claim, claims)  # type: ignore[assignment,method-assign]  # a look from inside
        before = time.perf_counter()
        serving = asyncio.create_task(worker.async_run())
        await until(lambda: worker.jobs_complete >= terms.jobs)
        seconds = time.perf_counter() - before
        worker.stop()
        await serving
        return {"jobs_s": terms.jobs / seconds, "claim_p99_ms": percentile(claims, 0.99)}


def _timed(call: Callable[..., Awaitable[Any]], taken: list[float]) -> Callable[..., Awaitable[Any]]:
    async def timed(*args: Any, **options: Any) -> Any:
        before = time.perf_counter()
        answer = await call(*args, **options)
        taken.append((time.perf_counter() - before) * 1000)
        return answer

    return timed
