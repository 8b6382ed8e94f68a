"""The Redis client of the service, where the stock one would let a process die."""

import asyncio
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from app.queue.connect import OUTAGES, Redis, open_redis
from tests.support.house import reply
from tests.support.waiting import eventually


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


async def test_more_commands_than_connections_wait_for_one(redis_url: str) -> None:
    redis = open_redis(redis_url, max_connections=2)
    try:
        assert all(await asyncio.gather(*(redis.ping() for _ in range(100))))
    finally:
        await redis.aclose(close_connection_pool=True)


@pytest.mark.parametrize("answer", ["BUSY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "OOM", "UNBLOCKED"])
async def test_an_answer_that_redis_does_nothing_for_now_is_an_outage(redis_url: str, answer: str) -> None:
    redis = open_redis(redis_url)
    try:
        with pytest.raises(OUTAGES):
            await reply(redis.eval("return redis.error_reply(ARGV[1])", 0, f"{answer} not now"))
    finally:
        await redis.aclose(close_connection_pool=True)


async def connection_of(redis: Redis) -> Any:
    return await redis.connection_pool.get_connection("PING")  # type: ignore[no-untyped-call]  # typed from 5.3 on


async def test_an_answer_that_nobody_took_is_never_taken_for_another(redis_url: str) -> None:
    redis = open_redis(redis_url)
    try:
        connection = await connection_of(redis)
        await connection.send_command("PING")
        await eventually(lambda: bool(connection._reader._buffer))
        await redis.connection_pool.release(connection)

        assert await redis.echo("mine") == b"mine"
    finally:
        await redis.aclose(close_connection_pool=True)


async def test_a_connection_that_redis_has_closed_is_opened_anew_before_a_command_is_sent(redis_url: str) -> None:
    redis, other = open_redis(redis_url), open_redis(redis_url)
    try:
        connection = await connection_of(redis)
        await redis.connection_pool.release(connection)
        closed = connection._reader
        await other.client_kill_filter(_type="normal", skipme=True)
        await eventually(closed.at_eof)

        await connection_of(redis)

        assert connection._reader is not closed
    finally:
        await redis.aclose(close_connection_pool=True)
        await other.aclose(close_connection_pool=True)
