"""Opens Redis. The client is arq's own, with the JSON serialiser, so that ``enqueue_job`` works on it."""

from typing import Any

import hiredis
from arq.connections import ArqRedis
from redis import exceptions as redis_errors
from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from app.queue import keys, wire

Redis = ArqRedis  # the one client type that the rest of the service names

# Redis does not answer, or takes no writes for now; anything else is an error of ours.
OUTAGES = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.OutOfMemoryError,
    redis_errors.ReadOnlyError,
    OSError,
)

_RETRIES = 2
_SOCKET_TIMEOUT_S = 10.0  # above every blocking command's own limit


class _Steady(AbstractConnection):
    """A connection whose every loss is a ConnectionError, which is retried and counts as an outage."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send; on a transport that was closed meanwhile, uvloop raises a RuntimeError, which redis-py lets pass."""
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            await self.disconnect(nowait=True)
            raise redis_errors.ConnectionError(str(error)) from error

    def pack_command(self, *args: Any) -> list[bytes]:
        """Write a command in the wire's form, in C: redis-py's own joins the command anew for every argument."""
        name, *rest = args  # the name may be of two words
        words = name.encode().split() if isinstance(name, str) else name.split()
        try:
            return [hiredis.pack_command((*words, *rest))]
        except TypeError as error:
            raise redis_errors.DataError(str(error)) from error


class _SteadyTcp(_Steady, Connection):
    pass


class _SteadyTls(_Steady, SSLConnection):
    pass


class _SteadyUnix(_Steady, UnixDomainSocketConnection):
    pass


_STEADY = {Connection: _SteadyTcp, SSLConnection: _SteadyTls, UnixDomainSocketConnection: _SteadyUnix}


def open_redis(url: str, *, max_connections: int = 64) -> Redis:
    """Make a client for ``url``. Connects on first use only, and again after every outage."""
    pool = ConnectionPool.from_url(
        url,
        max_connections=max_connections,
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), _RETRIES),
        retry_on_error=[redis_errors.ConnectionError, redis_errors.BusyLoadingError],
    )
    pool.connection_class = _STEADY[pool.connection_class]
    return ArqRedis(
        pool, job_serializer=wire.dump, job_deserializer=wire.load, default_queue_name=keys.queue("default", 5)
    )
