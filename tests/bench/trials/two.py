"""Several workers: how long ``rows`` worker processes take for the same jobs, which wait 50 ms each."""

import asyncio
import time
from contextlib import AsyncExitStack

from app.history.reader import Reader
from tests.bench.trials.house import NOOP, WAIT, Terms, fill, open_house, process

_LOOK_S = 0.01


async def run(terms: Terms) -> dict[str, float]:
    """Drain ``jobs`` jobs with ``rows`` worker processes of ``slots`` slots."""
    async with open_house(terms) as house, AsyncExitStack() as stack:
        for _ in range(terms.rows):
            await stack.enter_async_context(process(terms, "serving"))
        await fill(house, NOOP, 100 * terms.rows)  # both are awake, and their statements compiled
        await _all_done(house.reader)
        before = time.perf_counter()
        await fill(house, WAIT, terms.jobs)
        await _all_done(house.reader)
        return {"jobs_s": terms.jobs / (time.perf_counter() - before)}


async def _all_done(reader: Reader) -> None:
    while await reader.live_page(before=None, limit=1):
        await asyncio.sleep(_LOOK_S)
