"""Which Redis the demo works on: the one that ``REDIS_URL`` names if it is free to use, else one of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from app.embedded import EmbeddedRedis, find_server
from app.queue import keys

_ANSWER_S = 2.0
_OURS = tuple(value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisInUse:
    """A server to work on, and in words which one it is."""

    url: str
    description: str


@contextmanager
def open_redis(directory: Path) -> Iterator[RedisInUse]:
    """Offer a Redis for the length of the block; a server of the demo's own keeps its data in ``directory``.

    A database that ``REDIS_URL`` names is taken only when it is empty: another installation's jobs are not
    for the demo's worker, which has no rows of them. What the demo wrote there is removed at the end.
    """
    url = os.environ.get("REDIS_URL", "")
    obstacle = _obstacle(url) if url else None
    if url and obstacle is None:
        try:
            yield RedisInUse(url=url, description="the one that REDIS_URL names")
        finally:
            _remove_our_keys(url)
        return
    binary = find_server()
    with EmbeddedRedis(binary=binary, directory=directory) as server:
        reason = f" ({obstacle})" if obstacle else ""
        yield RedisInUse(url=server.url, description=f"{binary}, started for the demo{reason}")


def _obstacle(url: str) -> str | None:
    """Return why the database at ``url`` cannot be used, None if it can."""
    try:
        with redis.Redis.from_url(url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S) as client:
            count = int(client.dbsize())
    except (redis.RedisError, ValueError, OSError):
        return "the one that REDIS_URL names does not answer"
    return f"the one that REDIS_URL names holds {count:,} keys already" if count else None


def _remove_our_keys(url: str) -> None:
    with (
        suppress(redis.RedisError),
        redis.Redis.from_url(url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S) as client,
    ):
        for key in client.scan_iter(count=1000):
            if key.decode(errors="replace").startswith(_OURS):
                client.unlink(key)
