"""How often a password may be tried in vain: by one address, and for one name. In memory, of bounded size."""

import time
from collections import OrderedDict

from app.errors import TooManyTries

_LIMIT = 20_000  # names and addresses; the one that failed longest ago is forgotten first


class Throttle:
    """Counts failures by what they have in common, and lets each drain away with time."""

    def __init__(self, *, burst: int, every_s: float) -> None:
        self._burst = burst  # failures at once
        self._every_s = every_s  # then one in so many seconds
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when all failures of a kind will have drained away

    def check(self, what: str) -> None:
        """Raise TooManyTries while there were too many failures."""
        wait_s = self._free_at.get(what, 0.0) - time.monotonic() - self._every_s * (self._burst - 1)
        if wait_s > 0:
            raise TooManyTries(retry_after_s=wait_s)

    def fail(self, what: str) -> None:
        """Count a failure."""
        now = time.monotonic()
        self._free_at[what] = max(now, self._free_at.get(what, now)) + self._every_s
        self._free_at.move_to_end(what)
        while len(self._free_at) > _LIMIT:
            self._free_at.popitem(last=False)

    def forgive(self, what: str, failures: int = 1) -> None:
        """Take failures back."""
        if what in self._free_at:
            self._free_at[what] -= self._every_s * failures


class LoginThrottle:
    """The limits of the login route. One instance a process.

    A name is held up by failures from one address first, so that nobody can shut somebody else out with a
    few wrong passwords; failures from many addresses hold it up later.
    """

    def __init__(self) -> None:
        self._pair = Throttle(burst=5, every_s=30)
        self._address = Throttle(burst=50, every_s=5)
        self._name = Throttle(burst=100, every_s=30)

    def check(self, name: str, address: str) -> None:
        """Raise TooManyTries while there were too many failures, before any work is done."""
        for throttle, what in self._all(name, address):
            throttle.check(what)

    def fail(self, name: str, address: str) -> None:
        """Count a failed login, before it is known to have failed: tries at the same time count too."""
        for throttle, what in self._all(name, address):
            throttle.fail(what)

    def succeed(self, name: str, address: str) -> None:
        """Take back what :meth:`fail` counted, and forgive a name its failures from this address."""
        (pair, both), *others = self._all(name, address)
        pair.forgive(both, _LIMIT)
        for throttle, what in others:
            throttle.forgive(what)

    def _all(self, name: str, address: str) -> tuple[tuple[Throttle, str], ...]:
        return (self._pair, f"{address} {name}"), (self._address, address), (self._name, name)
