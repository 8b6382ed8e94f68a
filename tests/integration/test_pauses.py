"""Pauses of queues over HTTP: durable, shown, told on the stream, and in force for every claim."""

from collections.abc import AsyncIterator

import pytest

from app.history.pauses import read_pauses
from app.installation import open_installation
from app.live.events import load_event
from app.queue import keys
from app.settings import Settings
from tests.support.api import ADA_KEY, ApiUnderTest, running_api
from tests.support.house import claim
from tests.support.waiting import eventually
from workers.sweep import Sweep

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as api:
        yield api


async def told(api: ApiUnderTest) -> list[tuple[str, str]]:
    events = [load_event(fields[b"e"]) for _, fields in await api.house.redis.xrange(keys.EVENTS)]
    return [(event.type, event.queue) for event in events if event.type.startswith("queue.")]


async def test_a_paused_queue_keeps_its_tasks_until_it_is_resumed(api: ApiUnderTest) -> None:
    task = await api.submit()

    paused = await api.ask("POST", "/api/queues/alpha/pause")
    while_paused = await claim(api.house)
    resumed = await api.ask("POST", "/api/v1/queues/alpha/resume")

    assert (paused.status, paused.json["name"], paused.json["paused"], paused.json["ready"]) == (200, "alpha", True, 1)
    assert while_paused.claims == []
    assert (resumed.status, resumed.json["paused"]) == (200, False)
    assert [one.id for one in (await claim(api.house)).claims] == [task["task_id"]]


async def test_a_pause_is_shown_with_the_queues_and_outlives_a_flush(api: ApiUnderTest) -> None:
    await api.ask("POST", "/api/queues/alpha/pause")
    await api.house.redis.flushdb()

    await Sweep(api.house, worker_id="a-sweeper").rebuild()

    queues = (await api.ask("GET", "/api/tasks/queues/stats")).json["queues"]
    assert {queue["name"]: queue["paused"] for queue in queues} == {"alpha": True, "beta": False}


async def test_a_pause_and_its_end_are_told_once(api: ApiUnderTest) -> None:
    for verb in ("pause", "pause", "resume", "resume"):
        await api.ask("POST", f"/api/queues/alpha/{verb}")

    await eventually(lambda: _has_told(api))

    pauses = await read_pauses(api.house.database)
    assert pauses == {}


async def _has_told(api: ApiUnderTest) -> bool:
    return await told(api) == [("queue.paused", "alpha"), ("queue.resumed", "alpha")]


async def test_the_first_pause_keeps_its_name_and_time(api: ApiUnderTest) -> None:
    await api.ask("POST", "/api/queues/alpha/pause")
    first = await read_pauses(api.house.database)

    await api.ask("POST", "/api/queues/alpha/pause")

    assert await read_pauses(api.house.database) == first
    assert first["alpha"].paused_by == "admin"


@pytest.mark.parametrize("verb", ["pause", "resume"])
async def test_a_queue_that_is_not_there_is_not_found(api: ApiUnderTest, verb: str) -> None:
    answer = await api.ask("POST", f"/api/queues/gamma/{verb}")

    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert "alpha, beta" in answer.json["detail"]


async def test_only_administrators_pause(api: ApiUnderTest) -> None:
    answer = await api.ask("POST", "/api/queues/alpha/pause", key=ADA_KEY)

    assert (answer.status, await read_pauses(api.house.database)) == (403, {})


async def test_nothing_is_paused_while_redis_cannot_be_asked(settings: Settings) -> None:
    async with running_api(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as api:
        answer = await api.ask("POST", "/api/queues/alpha/pause")

        assert (answer.status, await read_pauses(api.house.database)) == (503, {})


async def test_a_pause_that_one_process_makes_holds_in_another(api: ApiUnderTest) -> None:
    await api.submit()
    await api.ask("POST", "/api/queues/alpha/pause")

    async with open_installation(api.house.settings, api.house.catalogue) as other:
        assert (await claim(other)).claims == []
