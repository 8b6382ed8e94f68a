"""Latency: from before the submit to the job's first line in a worker process that idles, through both commits."""

import asyncio
import os
import time

from app.jobs.status import Status
from app.orders import Order
from tests.bench.trials.house import LOOK, Sent, Terms, open_house, percentile, process

_PACE_S = 0.02


async def run(terms: Terms) -> dict[str, float]:
    """Submit ``jobs`` jobs, one after the other has ended."""
    async with open_house(terms) as house, process(terms, "serving"):
        waits = []
        for _ in range(terms.jobs + 20):
            order = Order(job_type=LOOK, params=Sent(at=time.monotonic()), owner="bench")
            (job,) = await house.lifecycle.submit([order])
            while (row := await house.reader.get(job.id)) is None or row.status is not Status.COMPLETED:
                await asyncio.sleep(_PACE_S)
            assert isinstance(row.result, dict)
            waits.append(float(row.result["ms"]))
        waits = waits[20:]  # the first ones compile statements
        return {"p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99), "sync_ms": _sync_ms(terms)}


def _sync_ms(terms: Terms) -> float:
    """Return what one sync of a page to this disk takes: two of them lie on the way."""
    with open(os.path.join(terms.directory, "sync"), "wb") as file:  # noqa: PTH118, PTH123  # a figure
        taken = []
        for _ in range(50):
            file.write(b"0" * 4096)
            file.flush()
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - before) * 1000)
    return percentile(taken, 0.5)
