"""Opens Redis. The client is arq's own, with the JSON serialiser, so that ``enqueue_job`` works on it."""

import asyncio
from typing import Any, cast

import hiredis
from arq.connections import ArqRedis
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from app.errors import Misconfigured
from app.queue import keys, wire

Redis = ArqRedis  # the one client type that the rest of the service names


class NotNow(redis_errors.ConnectionError):
    """Redis answers, but does nothing for now: it lacks its primary, replicas or disk, or is busy.

    As good as no connection: a new one may lead to another server, as behind the name of a primary.
    """


# Redis does not answer, or takes no writes for now; anything else is an error of ours.
OUTAGES = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.OutOfMemoryError,
    OSError,
)

_NOT_NOW = ("BUSY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "UNBLOCKED")  # the first words of such an answer
_RETRIES = 2
_SOCKET_TIMEOUT_S = 10.0  # above every blocking command's own limit


class _Parser(DefaultParser):  # type: ignore[valid-type, misc]  # a variable, which redis-py sets by what is installed
    """Tells the answers by which Redis does nothing for now from all others, which redis-py leaves alike."""

    EXCEPTION_CLASSES = DefaultParser.EXCEPTION_CLASSES | dict.fromkeys(_NOT_NOW, NotNow)


class _Steady(AbstractConnection):
    """A connection whose every loss is a ConnectionError, which is retried and counts as an outage."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Write a command by hiredis, which redis-py's asynchronous connections only read with.

        A job passes with some twenty arguments, each of which costs a microsecond in Python.
        """
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        try:
            return [hiredis.pack_command((*name.split(), *args[1:]))]
        except TypeError as error:
            raise redis_errors.DataError(f"A command takes bytes, text and numbers: {error}") from error

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send what :meth:`pack_command` wrote, in this task.

        redis-py sends in a task of its own, for the sake of the time limit: one more turn of the event loop for every
        command. On a transport that was closed meanwhile, uvloop raises a RuntimeError, which redis-py lets pass.
        """
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]  # redis-py's
        elif check_health:
            await self.check_health()  # type: ignore[no-untyped-call]  # redis-py's
        try:
            async with asyncio.timeout(self.socket_timeout):
                writer = cast(asyncio.StreamWriter, self._writer)
                writer.writelines(command)
                await writer.drain()
        except TimeoutError as error:
            await self.disconnect(nowait=True)
            raise redis_errors.TimeoutError("Redis takes nothing more.") from error
        except (OSError, RuntimeError) as error:
            await self.disconnect(nowait=True)
            raise redis_errors.ConnectionError(str(error)) from error
        except BaseException:  # half of a command may be on its way
            await self.disconnect(nowait=True)
            raise

    async def can_read_destructive(self) -> bool:
        """Whether an answer that nobody took lies in this connection, or it has ended: then the pool opens it anew.

        redis-py tries to read and cancels that at once: a turn of the event loop and an exception for every command.
        """
        stream, parser = cast(Any, self._reader), cast(Any, self._parser)  # neither tells in public what it holds
        has_ended = stream.at_eof() or stream.exception() is not None
        return has_ended or bool(stream._buffer) or bool(parser._reader.has_data())


class _SteadyTcp(_Steady, Connection):
    pass


class _SteadyTls(_Steady, SSLConnection):
    pass


class _SteadyUnix(_Steady, UnixDomainSocketConnection):
    pass


_STEADY = {Connection: _SteadyTcp, SSLConnection: _SteadyTls, UnixDomainSocketConnection: _SteadyUnix}


def open_redis(url: str, *, max_connections: int = 64) -> Redis:
    """Make a client for ``url``. Connects on first use only, and again after every outage.

    Raises Misconfigured for a URL of another kind.
    """
    try:
        pool = BlockingConnectionPool.from_url(  # more commands than connections wait for one
            url,
            max_connections=max_connections,
            timeout=_SOCKET_TIMEOUT_S,
            socket_timeout=_SOCKET_TIMEOUT_S,
            socket_connect_timeout=2.0,
            socket_keepalive=True,
            parser_class=_Parser,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), _RETRIES),
            retry_on_error=[redis_errors.ConnectionError, redis_errors.BusyLoadingError],
        )
    except ValueError as error:
        raise Misconfigured(f"REDIS_URL names no Redis: {error}") from error
    pool.connection_class = _STEADY[pool.connection_class]
    return ArqRedis(
        pool, job_serializer=wire.dump, job_deserializer=wire.load, default_queue_name=keys.queue("default", 5)
    )
