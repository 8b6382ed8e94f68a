"""Rates in memory: units that each caller, address or name has, and that come back one by one. Of bounded size."""

import time
from collections import OrderedDict

from app.errors import TooManyTries
from app.queue.rates import Rate, Taken

_LIMIT = 20_000  # names and addresses; the one that took last the longest ago is forgotten first


class Throttle:
    """Counts what was taken by whom, and lets each debt drain away with time (the generic cell rate algorithm)."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._paid_at: OrderedDict[str, float] = OrderedDict()  # when the debt of each will have drained away

    def take(self, what: str, cost: int = 1) -> Taken:
        """Take units if they are there; a cost beyond the burst waits for a full burst, and leaves a debt."""
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

    def forgive(self, what: str, cost: int = 1) -> None:
        """Give units back."""
        if what in self._paid_at:
            self._paid_at[what] -= self._rate.every_s * cost


class LoginThrottle:
    """The limits of the login route: how often a password may be tried in vain. One instance a process.

    A name is held up by failures from one address first, so that nobody can shut somebody else out with a
    few wrong passwords; failures from many addresses hold it up later.
    """

    def __init__(self) -> None:
        self._pair = Throttle(Rate(burst=5, every_s=30))
        self._address = Throttle(Rate(burst=50, every_s=5))
        self._name = Throttle(Rate(burst=100, every_s=30))

    def check(self, name: str, address: str) -> None:
        """Raise TooManyTries while there were too many failures, before any work is done."""
        wait_s = max(throttle.wait_s(what) for throttle, what in self._all(name, address))
        if wait_s > 0:
            raise TooManyTries(retry_after_s=wait_s)

    def fail(self, name: str, address: str) -> None:
        """Count a failed login, before it is known to have failed: tries at the same time count too."""
        for throttle, what in self._all(name, address):
            throttle.charge(what)

    def succeed(self, name: str, address: str) -> None:
        """Take back what :meth:`fail` counted, and forgive a name its failures from this address."""
        (pair, both), *others = self._all(name, address)
        pair.forgive(both, _LIMIT)
        for throttle, what in others:
            throttle.forgive(what)

    def _all(self, name: str, address: str) -> tuple[tuple[Throttle, str], ...]:
        return (self._pair, f"{address} {name}"), (self._address, address), (self._name, name)
