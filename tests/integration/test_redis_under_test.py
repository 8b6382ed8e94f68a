"""A Redis that REDIS_URL lends to the tests keeps everything its owner has in it."""

from collections.abc import Iterator

import pytest
import redis

from app.embedded import EmbeddedRedis
from tests.support.redis_server import MARKER, running_redis


@pytest.fixture
def lender() -> Iterator[str]:
    with EmbeddedRedis() as server:
        yield server.url


def database(url: str, number: int) -> redis.Redis:
    return redis.Redis.from_url(url.removesuffix("/0") + f"/{number}", decode_responses=True)


def test_databases_that_hold_foreign_keys_are_left_alone(lender: str) -> None:
    for number in (0, 1):
        database(lender, number).set("theirs", "precious")

    with running_redis(lender) as ours:
        ours.flush()

        assert ours.url.endswith("/2")
    assert [database(lender, number).get("theirs") for number in (0, 1)] == ["precious", "precious"]


def test_a_second_run_at_the_same_time_takes_another_database(lender: str) -> None:
    with running_redis(lender) as first, running_redis(lender) as second:
        first.flush()
        second.flush()

        assert first.url != second.url


def test_nothing_is_left_behind(lender: str) -> None:
    with running_redis(lender) as ours, redis.Redis.from_url(ours.url) as client:
        client.set("ours", "rubbish")

    assert database(lender, 1).dbsize() == 0


def test_where_nothing_is_free_a_database_that_a_killed_run_left_is_used(lender: str) -> None:
    for number in range(1, 16):
        database(lender, number).set("theirs" if number != 7 else MARKER, "precious")

    with running_redis(lender) as ours:
        assert ours.url.endswith("/7")


def test_where_nothing_is_ours_the_run_refuses(lender: str) -> None:
    for number in range(1, 16):
        database(lender, number).set("theirs", "precious")

    with pytest.raises(RuntimeError, match="not ours"), running_redis(lender):
        pass
