"""The Redis under test: a server of our own, or one database of the server that REDIS_URL names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis

from app.embedded import EmbeddedRedis

MARKER = "tests:marker"  # a database of somebody's server may be flushed only if it bears this key
_DATABASES = range(1, 16)  # never 0: that is where people keep things


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUnderTest:
    """A database that tests may fill and flush. A test that needs FLUSHALL or a kill starts an EmbeddedRedis."""

    url: str
    is_borrowed: bool

    def flush(self) -> None:
        """Empty the database; a borrowed one keeps its marker."""
        with redis.Redis.from_url(self.url) as client, client.pipeline(transaction=True) as together:
            together.flushdb()
            if self.is_borrowed:
                together.set(MARKER, 1)
            together.execute()


@contextmanager
def running_redis(url: str | None) -> Iterator[RedisUnderTest]:
    """Offer a database on the server at ``url``, or on a server of our own that ends with the block."""
    if url:
        with _borrowed(url) as server:
            yield server
    else:
        with EmbeddedRedis() as own:
            yield RedisUnderTest(url=own.url, is_borrowed=False)


@contextmanager
def _borrowed(url: str) -> Iterator[RedisUnderTest]:
    server = RedisUnderTest(url=_take_database(url), is_borrowed=True)
    yield server
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()


def _take_database(url: str) -> str:
    """Mark an empty database as ours, else take one that a run that was killed left marked."""
    candidates = [urlsplit(url)._replace(path=f"/{number}").geturl() for number in _DATABASES]
    for take in (_mark_if_empty, _is_marked):
        for candidate in candidates:
            with redis.Redis.from_url(candidate, socket_connect_timeout=5) as client:
                if take(client):
                    return candidate
    raise RuntimeError("REDIS_URL: databases 1 to 15 all hold keys that are not ours. Empty one, or unset REDIS_URL.")


def _mark_if_empty(client: redis.Redis) -> bool:
    return client.dbsize() == 0 and bool(client.set(MARKER, 1, nx=True))


def _is_marked(client: redis.Redis) -> bool:
    return bool(client.exists(MARKER))
