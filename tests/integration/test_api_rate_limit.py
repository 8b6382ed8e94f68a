"""How fast a caller may ask, over several API processes, with Redis and without."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.api import throttle
from app.api.auth import Caller
from app.api.rate_limit import RateLimit, cost_of_batch
from app.api.resources import RATE_LIMIT
from app.errors import RateLimited
from app.queue import keys
from app.queue.rates import Rate, Rates
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, Answer, ApiUnderTest, running_api
from tests.support.waiting import eventually

TASKS = "/api/tasks"
ADA = Caller(user_id="ada", is_admin=False)


@pytest.fixture
def limited(settings: Settings) -> Settings:
    return settings.model_copy(update={"rate_limit_per_minute": 6, "rate_limit_burst": 5})


@pytest.fixture
async def api(limited: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(limited) as running:
        yield running


async def ask(api: ApiUnderTest, count: int, key: str = ADA_KEY, path: str = TASKS) -> list[Answer]:
    return [await api.ask("GET", path, key=key) for _ in range(count)]


async def commands(api: ApiUnderTest) -> int:
    """Return how many scripts were called so far."""
    found = await api.house.redis.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_who_asks_too_often_is_told_when_to_ask_again(api: ApiUnderTest) -> None:
    *let_in, refused = await ask(api, 6)

    assert [answer.status for answer in let_in] == [200] * 5
    assert [answer.headers["RateLimit"].split(";")[1] for answer in let_in] == [f"r={left}" for left in (4, 3, 2, 1, 0)]
    assert {answer.headers["RateLimit-Policy"] for answer in (*let_in, refused)} == {'"requests";q=5;w=50'}
    assert (refused.status, refused.json["code"]) == (429, "rate_limited")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert 8 <= int(refused.headers["Retry-After"]) <= 10
    assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')


async def test_one_callers_haste_is_not_anothers_and_administrators_are_exempt(api: ApiUnderTest) -> None:
    await ask(api, 6)

    others = await ask(api, 1, BOB_KEY) + await ask(api, 20, ADMIN_KEY)

    assert {answer.status for answer in others} == {200}
    assert "RateLimit" not in others[-1].headers


async def test_what_is_open_takes_nothing_and_what_is_refused_for_another_reason_takes_one(api: ApiUnderTest) -> None:
    await ask(api, 20, path="/health")

    answers = await ask(api, 5, path="/api/tasks/nonsense") + await ask(api, 1)

    assert [answer.status for answer in answers] == [404] * 5 + [429]
    assert "RateLimit" in answers[0].headers


async def test_two_processes_grant_one_rate_together(limited: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_REDIS_S", 5.0)  # a machine that is slow today is no Redis that is out
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(running_api(limited)) for _ in range(2)]

        answers = await asyncio.gather(*(api.ask("GET", TASKS, key=ADA_KEY) for api in apis * 10))

    assert sorted(answer.status for answer in answers) == [200] * 5 + [429] * 15


async def test_a_limit_costs_one_trip_a_request_and_none_when_it_is_off(settings: Settings, api: ApiUnderTest) -> None:
    async with running_api(settings) as unlimited:
        before = await commands(api)
        await ask(unlimited, 5)
        without = await commands(api)
        await ask(api, 4)
        with_limit = await commands(api)

    assert (without - before, with_limit - without) == (0, 4)
    assert RATE_LIMIT not in unlimited.app


async def test_a_unit_comes_back_with_time_and_the_key_fades(settings: Settings, api: ApiUnderTest) -> None:
    rates = Rates(api.house.redis, Rate(burst=1, every_s=0.2))
    (first,), (second,) = await rates.take([("eve", 1)]), await rates.take([("eve", 1)])

    async def again() -> bool:
        return (await rates.take([("eve", 1)]))[0].wait_s == 0

    await eventually(again, within=5)
    assert first.wait_s == 0 < second.wait_s <= 0.2

    async def faded() -> bool:
        return not await api.house.redis.exists(keys.RATE + "eve")

    await eventually(faded, within=5)


async def test_what_is_refused_costs_nothing(api: ApiUnderTest) -> None:
    rates = Rates(api.house.redis, Rate(burst=1, every_s=100))
    await rates.take([("eve", 1)])

    (first,), (second,) = await rates.take([("eve", 1)]), await rates.take([("eve", 1)])

    assert 0 < second.wait_s <= first.wait_s


@pytest.mark.parametrize("found", [b"garbage", b"nan", b"inf", b"1e300", b"9000000000000000", b"-1", b"\x80\x04N."])
async def test_garbage_in_redis_keeps_nobody_out(api: ApiUnderTest, found: bytes) -> None:
    await api.house.redis.set(keys.RATE + "ada", found)

    (answer,) = await ask(api, 1)

    assert answer.status == 200


async def test_a_key_of_another_type_keeps_nobody_out(api: ApiUnderTest) -> None:
    await house.reply(api.house.redis.rpush(keys.RATE + "ada", "x"))

    assert [answer.status for answer in await ask(api, 6)] == [200] * 5 + [429]


async def test_while_redis_is_out_a_process_grants_the_rate_by_itself(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def out(*_: object) -> object:
        nonlocal asked
        asked += 1
        raise RedisConnectionError("gone")

    monkeypatch.setattr(api.app[RATE_LIMIT].throttle._shared, "take", out)

    answers = await ask(api, 6)

    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert asked == 1, "an outage must not cost every request the wait for it"


async def test_a_batch_costs_a_unit_for_every_hundred_tasks_begun(api: ApiUnderTest) -> None:
    def batch(count: int) -> dict[str, object]:
        return {"tasks": [{"task_name": "note", "params": {}}] * count}

    small = await api.ask("POST", "/api/tasks/batch", key=ADA_KEY, json=batch(100))
    large = await api.ask("POST", "/api/tasks/batch", key=ADA_KEY, json=batch(301))
    refused = await api.ask("POST", "/api/tasks/batch", key=ADA_KEY, json=batch(1))

    assert [answer.status for answer in (small, large, refused)] == [202, 202, 429]
    assert "r=4" in small.headers["RateLimit"]
    assert "r=0" in large.headers["RateLimit"]
    assert [cost_of_batch(count) for count in (1, 100, 101, 10_000)] == [0, 0, 1, 99]


async def test_what_costs_more_than_the_burst_waits_for_a_full_one_and_leaves_a_debt(api: ApiUnderTest) -> None:
    limit = RateLimit(api.house.redis, Rate(burst=5, every_s=10))

    headers = await limit.take(ADA, 20)

    assert headers["RateLimit"] == '"requests";r=0;t=200'
    with pytest.raises(RateLimited) as refused:
        await limit.take(ADA, 1)
    assert 155 < refused.value.retry_after_s <= 160


async def test_a_batch_beyond_the_rate_is_refused_before_anything_is_accepted(api: ApiUnderTest) -> None:
    await ask(api, 3)

    answer = await api.ask(
        "POST", "/api/tasks/batch", key=ADA_KEY, json={"tasks": [{"task_name": "note", "params": {}}] * 500}
    )

    assert (answer.status, answer.json["code"]) == (429, "rate_limited")
    assert (await api.ask("GET", "/api/tasks/count/all")).json["count"] == 0
