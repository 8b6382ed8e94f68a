"""A loop that does nothing but ask how late it is, until its input ends: what the machine alone makes of a loop."""

import asyncio
import sys

from tests.bench.trials.house import Terms, follow, percentile


async def run(_terms: Terms) -> dict[str, float]:
    """Measure for as long as somebody listens."""
    print("ready", flush=True)
    lags = [0.0]
    following = asyncio.create_task(follow(lags))
    await asyncio.to_thread(sys.stdin.read)
    following.cancel()
    return {"idle_p99_ms": 1000 * percentile(lags, 0.99)}
