"""Short jobs: how near 2,000 jobs of 50 ms in 100 slots come to the ideal second."""

import time

from tests.bench.trials.house import WAIT, Terms, fill, open_house, settle_in, worker_in


async def run(terms: Terms) -> dict[str, float]:
    """Run ``jobs`` jobs of 50 ms in ``slots`` slots."""
    async with open_house(terms) as house:
        await settle_in(house)
        await fill(house, WAIT, terms.jobs)
        worker = worker_in(house, slots=terms.slots, burst=True)
        before = time.perf_counter()
        await worker.async_run()
        seconds = time.perf_counter() - before
        assert worker.jobs_complete == terms.jobs, worker.jobs_complete
        return {"seconds": seconds, "to_ideal": seconds / (terms.jobs * 0.05 / terms.slots)}
