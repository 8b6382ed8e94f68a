"""The epoch: whether Redis still holds what SQL thinks it holds.

``jobs:epoch`` names the installation, the server's run and a counter that SQL keeps too. It is missing after a
flush or an empty restart, names another run after any restart, and bears another counter once either side was
restored from a backup. Each of these means: walk over all live jobs again. Used by the sweep, and at start.
"""

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from uuid import UUID

from redis.exceptions import ResponseError

from app.errors import Misconfigured
from app.queue import keys
from app.queue.connect import Redis
from app.queue.scripts import script_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What ``jobs:epoch`` says, and the run of the server that was asked. None or 0 is what it does not say."""

    installation: str | None
    counter: int
    run_id: str | None  # set when a walk has come to its end, so that an unfinished one leaves none
    server_run_id: str

    def is_current(self, counter: int) -> bool:
        """Whether nothing has happened to Redis or SQL since the last complete walk."""
        return self.counter == counter and self.run_id == self.server_run_id


class Epochs:
    """Reads and writes ``jobs:epoch``."""

    def __init__(self, redis: Redis, *, lease: timedelta) -> None:
        self._redis = redis
        self._lease_ms = int(lease.total_seconds() * 1000)
        self._begin = redis.register_script(script_text("epoch_begin"))
        self._end = redis.register_script(script_text("epoch_end"))

    async def read(self, installation: str, *, server_run_id: str | None = None) -> Mark:
        """Return how Redis stands; raise Misconfigured if it belongs to another installation.

        The server is asked for its run, unless the caller knows it from a moment ago.
        """
        mark = await self._read(server_run_id)
        if mark.installation not in (None, installation):
            raise Misconfigured(
                f"The Redis at REDIS_URL belongs to another installation ({mark.installation}); that of the database "
                f"is {installation}. Point REDIS_URL to a Redis, or a database number, of its own. If the database was "
                f"replaced on purpose, delete the key {keys.EPOCH} there: entries without a row will be dropped."
            )
        return mark

    async def begin(self, installation: str, counter: int, walk: str, paused: Iterable[str]) -> None:
        """Begin a walk: pauses first, a fresh period for every lease; other walks end at their next page."""
        await self._begin(args=[self._lease_ms, installation, counter, walk, *paused])

    async def end(self, walk: str, run_id: str) -> bool:
        """End a walk; return False if it was not the current one any more."""
        return bool(await self._end(args=[walk, run_id]))

    async def _read(self, server_run_id: str | None) -> Mark:
        found = await self._fields()
        return Mark(
            installation=_installation(found.get(b"installation", b"")),
            counter=_number(found.get(b"counter", b"")),
            run_id=found.get(b"run_id", b"").decode(errors="replace") or None,
            server_run_id=server_run_id or await self._run_id(),
        )

    async def _fields(self) -> dict[bytes, bytes]:
        try:
            return await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(keys.EPOCH))
        except ResponseError:  # no hash: as good as missing, and the next walk replaces it
            return {}

    async def _run_id(self) -> str:
        try:
            server = await self._redis.info("server")
        except ResponseError:  # forbidden by some that rent Redis out; flushes and restores are found without it
            return "unknown"
        return str(server.get("run_id", "unknown"))


def _installation(raw: bytes) -> str | None:
    """Return a name that an installation can have; garbage names none, and is replaced by the next walk."""
    try:
        return str(UUID(raw.decode()))
    except ValueError:
        return None


def _number(raw: bytes) -> int:
    return int(raw) if raw.isdigit() and len(raw) < 19 else 0
