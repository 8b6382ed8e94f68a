"""The Redis client of the service, where the stock one would let a process die."""

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from app.queue.connect import OUTAGES, open_redis


def cut(connection: AbstractConnection) -> None:
    """Close the transport below a connection that believes itself open."""
    assert connection._writer is not None
    connection._writer.transport.abort()


def test_a_connection_that_was_closed_under_uvloop_is_an_outage(redis_url: str) -> None:
    async def send_on_a_closed_connection() -> None:
        redis = open_redis(redis_url)
        try:
            connection = redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py gives it no types
            await connection.connect()
            cut(connection)
            await connection.send_command("PING", check_health=False)
        finally:
            await redis.aclose(close_connection_pool=True)

    with pytest.raises(RedisConnectionError) as caught:
        uvloop.run(send_on_a_closed_connection())

    assert isinstance(caught.value, OUTAGES)


def test_the_client_goes_on_after_its_connections_were_closed(redis_url: str) -> None:
    async def ask_again() -> bool:
        redis = open_redis(redis_url)
        try:
            await redis.ping()
            for connection in redis.connection_pool._available_connections:
                cut(connection)
            return bool(await redis.ping())
        finally:
            await redis.aclose(close_connection_pool=True)

    assert uvloop.run(ask_again())
