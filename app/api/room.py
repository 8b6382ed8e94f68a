"""How much one process works on at once. What exceeds it is refused before it is read, so that memory stays bounded."""

from app.errors import Busy
from app.log import get_log

MAX_REQUESTS = 2_000  # with a body, at once; a commit of as many takes less than a second
MAX_BYTES = 64 * 1024 * 1024  # of their bodies; what is made of a batch takes some ten times as much

log = get_log()


class Room:
    """The requests with a body that are being answered, and what they weigh. One instance a process."""

    def __init__(self, *, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0

    def take(self, size: int) -> None:
        """Make room for a request with a body of ``size`` bytes, until :meth:`leave`; raise Busy if there is none."""
        if self._requests >= self._max_requests or (self._requests and self._bytes + size > self._max_bytes):
            log.warning("request_turned_away", requests=self._requests, bytes=self._bytes)
            raise Busy
        self._requests += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Give back what :meth:`take` took."""
        self._requests -= 1
        self._bytes -= size
