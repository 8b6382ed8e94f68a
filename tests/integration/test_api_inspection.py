"""What runs, waits and is claimed, in a classic broker's words; and a worker that is told to drain."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.clock import utc_now
from app.live.workers import beat
from app.queue import keys
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.workers import heartbeat

NAMES = {"worker", "task_id", "task_name", "args", "kwargs", "time_start", "eta", "queue", "priority", "user_id"}

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def listed(api: ApiUnderTest, name: str, **options: Any) -> list[dict[str, Any]]:
    answer = await api.ask("GET", f"/api/tasks/{name}/list", **options)
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = answer.json
    return found


async def test_each_task_is_in_the_list_of_what_it_does(api: ApiUnderTest) -> None:
    running = await house.start_one(api.house)
    scheduled = await api.submit(countdown=3600)
    reserved = await api.submit()
    (claim,) = (await house.claim(api.house, token="the-worker:7")).claims
    assert claim.id == reserved["task_id"]
    await api.submit()

    (active,), (waits,), (claimed,) = [await listed(api, name) for name in ("active", "scheduled", "reserved")]

    assert (active["task_id"], active["worker"], active["eta"]) == (running.id, house.WORKER, None)
    assert (active["args"], active["kwargs"]) == ([], {"text": "", "user_id": None})
    assert active["time_start"] is not None
    assert (waits["task_id"], waits["worker"], waits["time_start"]) == (scheduled["task_id"], None, None)
    assert waits["eta"] is not None
    assert (claimed["task_id"], claimed["worker"]) == (reserved["task_id"], "the-worker")
    assert set(active) == set(waits) == set(claimed) == NAMES


@pytest.mark.parametrize("name", ["active", "reserved"])
async def test_what_cron_submitted_is_listed_when_asked_for(api: ApiUnderTest, name: str) -> None:
    tick = house.order(schedule="hourly", tick_at=house.whole_ms(utc_now()))
    assert await api.house.lifecycle.submit_tick(tick) is not None
    await api.submit()
    await (house.start(api.house) if name == "active" else house.claim(api.house))

    people, cron, every = [
        await listed(api, name, params=params) for params in ({}, {"scheduled_by": "cron"}, {"include": "all"})
    ]
    wrong = await api.ask("GET", f"/api/tasks/{name}/list", params={"include": "some"})

    assert (len(people), len(cron), len(every)) == (1, 1, 2)
    assert people != cron
    assert (wrong.status, "known are: all" in wrong.json["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["active", "scheduled", "reserved"])
async def test_the_lists_are_the_callers_own(api: ApiUnderTest, name: str) -> None:
    await api.submit(key=ADA_KEY, **({"countdown": 3600} if name == "scheduled" else {}))
    if name == "active":
        await house.start(api.house)
    elif name == "reserved":
        await house.claim(api.house)

    assert [len(await listed(api, name, key=key)) for key in (ADA_KEY, BOB_KEY)] == [1, 0]


@pytest.mark.databases("sqlite")
async def test_a_list_is_as_long_as_asked(api: ApiUnderTest) -> None:
    for _ in range(3):
        await api.submit(countdown=3600)

    assert len((await api.ask("GET", "/api/tasks/scheduled/list?limit=2")).json) == 2


@pytest.mark.databases("sqlite")
async def test_a_worker_is_told_to_drain(api: ApiUnderTest) -> None:
    await beat(api.house.redis, heartbeat("here:1:abc"))
    async with api.house.redis.pubsub() as channel:
        await channel.subscribe(keys.CONTROL)
        await channel.get_message(timeout=5)

        answer = await api.ask("POST", "/api/workers/here:1:abc/drain")

        async with asyncio.timeout(5):
            while (message := await channel.get_message(ignore_subscribe_messages=True, timeout=1)) is None:
                pass
    assert (answer.status, answer.json["id"]) == (200, "here:1:abc")
    assert orjson.loads(message["data"]) == {"drain": "here:1:abc"}


@pytest.mark.databases("sqlite")
async def test_a_worker_that_there_is_not_is_not_found(api: ApiUnderTest) -> None:
    answer = await api.ask("POST", "/api/workers/here:1:abc/drain")

    assert (answer.status, answer.json["code"]) == (404, "not_found")
