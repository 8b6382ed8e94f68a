"""Questions to Redis for an answer that cannot be given without it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from app.errors import Unavailable
from app.queue.client import QueueStats
from app.queue.connect import OUTAGES

_REDIS_S = 2.0  # how long a question may take


@asynccontextmanager
async def asking_redis() -> AsyncIterator[None]:
    """Raise Unavailable if Redis does not answer in time."""
    try:
        async with asyncio.timeout(_REDIS_S):
            yield
    except OUTAGES as error:
        raise Unavailable("Redis does not answer; tasks are still accepted, but this cannot be told now.") from error


def age_s(stats: QueueStats, now: datetime) -> float | None:
    """Return how long the oldest ready job of a queue has waited, in seconds; None when none is ready."""
    return None if stats.oldest_ready is None else max(0.0, (now - stats.oldest_ready).total_seconds())
