"""How much of its rate each caller has used, over all API processes: one number a caller, by the time of Redis."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.queue.connect import Redis
from app.queue.scripts import script_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Units that come back one by one: ``burst`` at once, then one in ``every_s`` seconds."""

    burst: int
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a request for units: how long to wait for them (0: taken), and for the whole burst."""

    wait_s: float
    paid_in_s: float


class Rates:
    """The shared side of one rate. Methods raise redis-py's errors when Redis does not answer."""

    def __init__(self, redis: Redis, rate: Rate) -> None:
        self._script = redis.register_script(script_text("rate"))
        self._rate = (rate.burst, rate.every_s * 1e6)

    async def take(self, asked: Sequence[tuple[str, int]]) -> list[Taken]:
        """Take units for callers, each with its cost, in one call; what cannot be had is not taken.

        A cost below zero gives units back.
        """
        found = await self._script(args=[*self._rate, *(part for one in asked for part in one)])
        return [
            Taken(wait_s=wait / 1e6, paid_in_s=paid / 1e6) for wait, paid in zip(found[0::2], found[1::2], strict=True)
        ]
