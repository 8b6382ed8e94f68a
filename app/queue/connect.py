"""Opens Redis. The client is arq's own, with the JSON serialiser, so that ``enqueue_job`` works on it."""

from arq.connections import ArqRedis
from redis import exceptions as redis_errors
from redis.asyncio import ConnectionPool
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
    return ArqRedis(
        pool, job_serializer=wire.dump, job_deserializer=wire.load, default_queue_name=keys.queue("default", 5)
    )
