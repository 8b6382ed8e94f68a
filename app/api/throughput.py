"""How many jobs end per second in each queue, from the shared counters. Imported by the API alone."""

import asyncio
import time
from collections import Counter, deque

from app.live.totals import read_totals
from app.queue.connect import Redis

_EVERY_S = 5.0
_WINDOW = 12  # samples: the rate is that of about the last minute

_ENDED = frozenset({"completed", "failed", "cancelled"})


class Throughput:
    """Remembers the counters of the last minute. One instance a process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._samples: deque[tuple[float, Counter[str]]] = deque(maxlen=_WINDOW)

    async def run(self) -> None:
        """Take samples for ever. Raises when Redis does not answer; run again, it begins anew."""
        self._samples.clear()
        while True:
            await self.sample()
            await asyncio.sleep(_EVERY_S)

    async def sample(self) -> None:
        """Look at the counters once."""
        totals = await read_totals(self._redis)
        ended: Counter[str] = Counter()
        for key, count in totals.items():
            match key:
                case ("tasks", _, queue, status) if status in _ENDED:
                    ended[queue] += count
        self._samples.append((time.monotonic(), ended))

    def rate(self, queue: str) -> float | None:
        """Return jobs ended per second; None until there are two samples."""
        if len(self._samples) < 2:
            return None
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return round(max(0, last[queue] - first[queue]) / max(last_at - first_at, 1e-9), 3)
