"""A worker in a process of its own, for trials that watch one from outside. Ends when it is killed."""

from tests.bench.trials.house import Terms, open_house, worker_in


async def run(terms: Terms) -> dict[str, float]:
    """Serve until killed."""
    async with open_house(terms) as house:
        worker = worker_in(house, slots=terms.slots)
        print("ready", flush=True)
        await worker.async_run()
    return {}
