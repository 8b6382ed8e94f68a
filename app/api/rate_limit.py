"""How fast one caller may ask: a rate over all API processes, kept in Redis, or in memory while that is out.

Every request of a caller takes one unit, a batch one for every 100 tasks begun. Administrators and open routes
take none. While Redis is out each process grants the rate for itself.
"""

import math
from collections.abc import Mapping

from app.api.auth import Caller
from app.api.throttle import SharedThrottle
from app.errors import RateLimited
from app.group import GroupCommit
from app.queue.connect import Redis
from app.queue.rates import Rate, Taken
from app.settings import Settings

UNIT_TASKS = 100  # tasks of a batch that cost as much as a request


class RateLimit:
    """One rate for every caller. One instance a process; what is asked at the same time goes to Redis together."""

    def __init__(self, redis: Redis, rate: Rate) -> None:
        self.rate = rate
        self.throttle = SharedThrottle(redis, rate)
        self._ask: GroupCommit[tuple[str, int], Taken] = GroupCommit(self.throttle.take)

    async def take(self, caller: Caller, cost: int = 1) -> Mapping[str, str]:
        """Take units of a caller's rate; return what the answer's headers say of it. Raise RateLimited.

        A websocket that is refused like this is closed with 4429.
        """
        if caller.is_admin or cost <= 0:
            return {}
        taken = await self._ask((caller.user_id, cost))
        headers = self._headers(taken)
        if taken.wait_s > 0:
            raise RateLimited(
                f"This caller asks too often: at most {self.rate.burst} at once, then one every "
                f"{self.rate.every_s:g} s. Ask again in {math.ceil(taken.wait_s)} s.",
                retry_after_s=taken.wait_s,
                headers=headers,
            )
        return headers

    def _headers(self, taken: Taken) -> dict[str, str]:
        """Say it as draft-ietf-httpapi-ratelimit-headers-10 does: a burst that comes back whole within a window."""
        rate = self.rate
        left = max(0, math.floor(rate.burst - taken.paid_in_s / rate.every_s + 1e-6))
        return {
            "RateLimit-Policy": f'"requests";q={rate.burst};w={math.ceil(rate.burst * rate.every_s)}',
            "RateLimit": f'"requests";r={left};t={math.ceil(taken.paid_in_s)}',
        }


def open_rate_limit(settings: Settings, redis: Redis) -> RateLimit | None:
    """Return the limit that the settings ask for; None where there is none."""
    if settings.rate_limit_per_minute == 0:
        return None
    return RateLimit(redis, Rate(burst=settings.rate_limit_burst, every_s=60 / settings.rate_limit_per_minute))


def cost_of_batch(count: int) -> int:
    """Return how many units a batch of tasks costs beyond those of its request."""
    return math.ceil(count / UNIT_TASKS) - 1
