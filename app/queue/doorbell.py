"""The doorbell: how an idle worker waits without polling."""

import random
from collections.abc import Awaitable, Sequence
from typing import cast

from redis.exceptions import ResponseError

from app.queue import keys
from app.queue.connect import Redis
from app.queue.mend import is_wrong_type, mend

_SPREAD = 0.2


class Doorbell:
    """Waits for a ring on any of some queues."""

    def __init__(self, redis: Redis, queues: Sequence[str]) -> None:
        self._redis = redis
        self._queues = queues
        self._bells = [keys.bell(name) for name in queues]

    async def wait(self, *, at_most_s: float) -> str | None:
        """Return the bell that rang, or None after ``at_most_s`` seconds (± 20 %, so that workers spread out)."""
        limit = at_most_s * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311  # jitter, not a secret
        ringing = self._redis.blpop(self._bells, timeout=limit)  # type: ignore[arg-type]  # Redis takes fractions
        try:
            rung = await cast(Awaitable[tuple[bytes, bytes] | None], ringing)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            await mend(self._redis, self._queues)
            return None
        return None if rung is None else rung[0].decode()

    async def pass_on(self, bell: str) -> None:
        """Ring again what this worker cannot use, for another one."""
        await cast(Awaitable[int], self._redis.lpush(bell, b"1"))
