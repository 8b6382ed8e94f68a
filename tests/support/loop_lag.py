"""How late the event loop wakes up while something else goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MOST_S = 0.25  # for :func:`p99`; the aim is 0.05 on an idle machine, but tests share theirs
_TICK_S = 0.005


@asynccontextmanager
async def watched_loop() -> AsyncIterator[list[float]]:
    """Measure, during the block, how much later than asked the loop comes back, in seconds, every 5 ms."""
    lags = [0.0]

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            lags.append(time.perf_counter() - before - _TICK_S)

    watching = asyncio.ensure_future(watch())
    try:
        yield lags
    finally:
        watching.cancel()


def p99(lags: list[float]) -> float:
    """Return the lag that one in a hundred exceeds, in seconds."""
    return sorted(lags)[int(len(lags) * 0.99)]
