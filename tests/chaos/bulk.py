"""Many jobs at once, submitted through the service's own door, and what Redis knows of them."""

import itertools
import time
from typing import Any

from app.installation import open_installation
from app.jobs.catalogue import Catalogue
from app.orders import Order
from app.queue import keys
from app.queue.connect import Redis
from tests.chaos.ledger import write_entry
from tests.chaos.stage import Stage
from tests.chaos.trial import FAMILY, QUEUES, StepParams, near

_BATCH = 500
_numbers = itertools.count()


async def submit_many(stage: Stage, count: int, *, priority: int = 5, **params: Any) -> list[str]:
    """Accept and ring ``count`` steps; write down that they were; return their ids."""
    ids = []
    async with open_installation(stage.settings, Catalogue([FAMILY])) as house:
        for at in range(0, count, _BATCH):
            marks = [f"bulk-{next(_numbers)}" for _ in range(min(_BATCH, count - at))]
            asked_at = time.time()
            orders = [
                Order(job_type=near, params=StepParams(mark=mark, **params), owner="chaos", priority=priority)
                for mark in marks
            ]
            for mark, job in zip(marks, await house.lifecycle.submit(orders), strict=True):
                facts = {"mark": mark, "asked_at": asked_at, "status": 202, "job_id": job.id, "priority": priority}
                write_entry(stage.directory / "client-bulk.ndjson", "ask", **facts)
                ids.append(job.id)
    return ids


async def count_offered(redis: Redis) -> int:
    """Count the jobs that Redis knows, waiting and running."""
    pipe = redis.pipeline(transaction=False)
    for name in QUEUES:
        for priority in keys.PRIORITIES:
            pipe.zcard(keys.queue(name, priority))
    return sum(await pipe.execute())
