"""Rates: units that each caller, address or name has, and that come back one by one.

They are kept in Redis for all API processes together, and in the memory of each while Redis is out.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256

from redis.exceptions import ResponseError

from app.errors import TooManyTries
from app.log import get_log
from app.queue.connect import OUTAGES, Redis
from app.queue.rates import Rate, Rates, Taken

log = get_log()

_LIMIT = 20_000  # names and addresses; the one that took last the longest ago is forgotten first
_REDIS_S = 0.1  # how long a request waits for Redis to say
_APART_S = 2.0  # how long Redis is not asked again after it did not


class Throttle:
    """Counts what was taken by whom, and lets each debt drain away with time (the generic cell rate algorithm)."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._paid_at: OrderedDict[str, float] = OrderedDict()  # when the debt of each will have drained away

    def take(self, what: str, cost: int = 1) -> Taken:
        """Take units if they are there; a cost beyond the burst waits for a full burst, and leaves a debt.

        A cost below zero gives units back.
        """
        wait_s = self.wait_s(what, cost)
        if wait_s <= 0:
            self.charge(what, cost)
        paid_in_s = max(0.0, self._paid_at.get(what, 0.0) - time.monotonic())
        return Taken(wait_s=max(0.0, wait_s), paid_in_s=paid_in_s)

    def wait_s(self, what: str, cost: int = 1) -> float:
        """Return how long it takes until units can be taken; 0 or less is now."""
        owed_s = max(0.0, self._paid_at.get(what, 0.0) - time.monotonic())
        return owed_s - self._rate.every_s * (self._rate.burst - min(cost, self._rate.burst))

    def charge(self, what: str, cost: int = 1) -> None:
        """Take units whether or not they are there."""
        now = time.monotonic()
        self._paid_at[what] = max(now, self._paid_at.get(what, now)) + self._rate.every_s * cost
        self._paid_at.move_to_end(what)
        while len(self._paid_at) > _LIMIT:
            self._paid_at.popitem(last=False)


class SharedThrottle:
    """One rate over all API processes. One instance a process."""

    def __init__(self, redis: Redis, rate: Rate) -> None:
        self._shared = Rates(redis, rate)
        self._own = Throttle(rate)
        self._apart_until = 0.0

    async def take(self, asked: Sequence[tuple[str, int]]) -> list[Taken]:
        """Take units, each request with its cost; what cannot be had is not taken, a cost below zero gives back."""
        if time.monotonic() >= self._apart_until:
            try:
                async with asyncio.timeout(_REDIS_S):
                    return await self._shared.take(asked)
            except (*OUTAGES, ResponseError) as error:
                self._apart_until = time.monotonic() + _APART_S
                log.warning("rates_kept_apart", reason=str(error) or type(error).__name__)
        return [self._own.take(who, cost) for who, cost in asked]


class LoginThrottle:
    """The limits of the login route: how often a password may be tried in vain, over all API processes.

    A name is held up by failures from one address first, so that nobody can shut somebody else out with a
    few wrong passwords; failures from many addresses hold it up later.
    """

    _PAIR, _ADDRESS, _NAME = Rate(burst=5, every_s=30), Rate(burst=50, every_s=5), Rate(burst=100, every_s=30)

    def __init__(self, redis: Redis) -> None:
        self._pair, self._address, self._name = (
            SharedThrottle(redis, rate) for rate in (self._PAIR, self._ADDRESS, self._NAME)
        )

    async def take(self, name: str, address: str) -> None:
        """Count a login as failed before it is known to have: tries at the same time count too.

        Raise TooManyTries, and count nothing, while there were too many failures.
        """
        limits = self._limits(name, address)
        taken = [(await throttle.take([(what, 1)]))[0] for throttle, what in limits]
        wait_s = max(found.wait_s for found in taken)
        if wait_s > 0:
            for (throttle, what), found in zip(limits, taken, strict=True):
                if found.wait_s <= 0:
                    await throttle.take([(what, -1)])
            raise TooManyTries(retry_after_s=wait_s)

    async def succeed(self, name: str, address: str) -> None:
        """Take back what :meth:`take` counted, and forgive a name its failures from this address."""
        (pair, both), *others = self._limits(name, address)
        await pair.take([(both, -self._PAIR.burst)])
        for throttle, what in others:
            await throttle.take([(what, -1)])

    def _limits(self, name: str, address: str) -> tuple[tuple[SharedThrottle, str], ...]:
        return (
            (self._pair, _place("pair", address, name)),
            (self._address, _place("address", address)),
            (self._name, _place("name", name)),
        )


def _place(*words: str) -> str:
    """Return where a rate is kept: not in words, because people type passwords where their name belongs."""
    return "login:" + sha256("\0".join(words).encode(errors="backslashreplace")).hexdigest()
