"""Following a list: it begins with every live task, tells of workers too, and shows everybody their own and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from app.api import watch
from app.api.resources import LINKS
from app.live.workers import _silent_workers, beat, tell_of_lost
from app.queue import keys
from app.queue.connect import Redis
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.integration.test_api_stream import progress_of
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.following import LIST, WAYS, Way, by_events, by_socket, first_of
from tests.support.waiting import eventually
from tests.support.workers import heartbeat
from workers.pulse import Pulse

pytestmark = pytest.mark.databases("sqlite")  # what is told is in Redis


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, reread_s=0.2) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
async def test_a_list_begins_with_each_live_task_that_passes_its_filters_and_tells_nothing_older(
    api: ApiUnderTest, way: Way
) -> None:
    ended = await house.start_one(api.house)
    await house.settle(api.house, ended)
    running = await house.start_one(api.house)
    (other,) = await house.submit(api.house, house.order(house.count))

    async with aclosing(way(api, f"{LIST}?queue=alpha")) as stream:  # type: ignore[type-var]
        snapshot, opened = await first_of(stream, 2)
        api.house.outbox.post(replace(progress_of(running.id, 0.0, 1), type="task.started"))  # told late
        api.house.outbox.post(replace(progress_of(other.id, 50.0, 1), queue="beta"))
        api.house.outbox.post(progress_of(running.id, 50.0, 1))
        (news,) = await first_of(stream, 1)

    assert (snapshot["type"], snapshot["id"], snapshot["data"]["task_id"]) == ("task.snapshot", "", running.id)
    assert (snapshot["data"]["status"], opened["type"]) == ("running", "stream.opened")
    assert (opened["data"]["snapshots"], opened["data"]["is_complete"]) == (1, True)
    assert (news["data"]["task_id"], news["data"]["progress"]) == (running.id, 50.0)


@pytest.mark.parametrize("way", WAYS)
async def test_followers_hear_of_workers_that_come_and_go(api: ApiUnderTest, way: Way) -> None:
    dead, redis = heartbeat("w-dead"), api.house.redis
    pulse = Pulse(redis, api.house.outbox, "w-well", lambda *_: heartbeat("w-well"))
    async with aclosing(way(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        await beat(redis, replace(dead, last_heartbeat=dead.last_heartbeat - timedelta(minutes=1)))
        await redis.delete(keys.worker(dead.id))
        beating = asyncio.create_task(pulse.run())
        heard = await first_of(stream, 2)
        beating.cancel()
        await pulse.stop()
        heard += await first_of(stream, 1)

    told = [(message["type"], message["data"]) for message in heard]
    assert sorted(told[:2], key=str) == [
        ("worker.lost", {"worker_id": "w-dead"}),
        ("worker.started", {"worker_id": "w-well"}),
    ]
    assert told[2:] == [("worker.stopped", {"worker_id": "w-well"})]


async def test_the_last_worker_that_dies_is_told_of_by_the_api(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_EVERY_S", 0.05)
    async with running_api(settings) as api, aclosing(by_socket(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        dead = heartbeat("w-dead")
        await beat(api.house.redis, replace(dead, last_heartbeat=dead.last_heartbeat - timedelta(minutes=1)))
        await api.house.redis.delete(keys.worker(dead.id))
        (lost,) = await first_of(stream, 1)

    assert (lost["type"], lost["data"]) == ("worker.lost", {"worker_id": "w-dead"})


async def test_a_worker_that_died_is_told_of_once_however_many_watch(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, redis, look, have_looked = heartbeat("w-dead"), api.house.redis, _silent_workers, asyncio.Barrier(5)

    async def look_together(redis: Redis) -> list[str]:
        silent = await look(redis)
        await have_looked.wait()
        return silent

    async with aclosing(by_socket(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        await beat(redis, replace(dead, last_heartbeat=dead.last_heartbeat - timedelta(minutes=1)))
        await tell_of_lost(redis, api.house.outbox)  # its heartbeat is still there
        await redis.delete(keys.worker(dead.id))
        monkeypatch.setattr("app.live.workers._silent_workers", look_together)
        await asyncio.gather(*(tell_of_lost(redis, api.house.outbox) for _ in range(5)))
        await house.submit(api.house)
        heard = await first_of(stream, 2)

    assert [message["type"] for message in heard] == ["worker.lost", "task.submitted"]


@pytest.mark.parametrize("way", WAYS)
async def test_everybody_follows_their_own_and_the_administrator_all(api: ApiUnderTest, way: Way) -> None:
    async with (
        aclosing(way(api, LIST, key=ADA_KEY)) as adas,  # type: ignore[type-var]
        aclosing(way(api, LIST, key=BOB_KEY)) as bobs,  # type: ignore[type-var]
        aclosing(way(api, LIST, key=ADMIN_KEY)) as all_of_them,  # type: ignore[type-var]
    ):
        for stream in (adas, bobs, all_of_them):
            await first_of(stream, 1)
        ada, bob = [(await api.submit(key=key))["task_id"] for key in (ADA_KEY, BOB_KEY)]
        heard = [(await first_of(stream, 1))[0]["data"]["task_id"] for stream in (adas, bobs)]
        admins = [message["data"]["task_id"] for message in await first_of(all_of_them, 2)]
        foreign = [task.cancel() for task in [asyncio.ensure_future(anext(adas)), asyncio.ensure_future(anext(bobs))]]
        await asyncio.sleep(0)

    assert (heard, admins, foreign) == ([ada, bob], [ada, bob], [True, True])


async def test_a_resume_shows_nobody_what_is_not_theirs(api: ApiUnderTest) -> None:
    async with aclosing(by_events(api, LIST, key=BOB_KEY)) as stream:  # type: ignore[type-var]
        (opened,) = await first_of(stream, 1)
    await eventually(lambda: len(api.app[LINKS]) == 0)
    foreign, own = [(await api.submit(key=key))["task_id"] for key in (ADA_KEY, BOB_KEY)]
    await eventually(lambda: has_events(api, 2))

    async with aclosing(by_events(api, LIST, opened["id"], key=BOB_KEY)) as stream:  # type: ignore[type-var]
        (heard,) = await first_of(stream, 1)
    refused = await api.ask(
        "GET",
        f"/api/tasks/{foreign}/events?after={opened['id']}",
        key=BOB_KEY,
        headers={"Accept": "text/event-stream"},
    )

    assert heard["data"]["task_id"] == own
    assert refused.status == 404


async def has_events(api: ApiUnderTest, count: int) -> bool:
    return int(await api.house.redis.xlen(keys.EVENTS)) >= count


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=task.completed", ["task.completed"]),
        ("type=task.started,task.completed", ["task.started", "task.completed"]),
        ("status=running", ["task.started"]),
        ("status=SUCCESS", ["task.completed"]),
        ("task_name=note&queue=alpha&family=test&user_id=ada", ["task.submitted", "task.started", "task.completed"]),
        ("task_type=maintenance", []),
        ("queue=beta", ["queue.paused"]),
        ("user_id=bob", []),
    ],
)
async def test_a_list_shows_what_its_filters_let_pass(api: ApiUnderTest, query: str, expected: list[str]) -> None:
    async with aclosing(by_events(api, f"{LIST}?{query}")) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        await api.submit(key=ADA_KEY, user_id="ada")
        (job,) = await house.start(api.house)
        await house.settle(api.house, job)
        await api.ask("POST", "/api/queues/beta/pause")
        heard = [message["type"] for message in await first_of(stream, len(expected))]

    assert heard == expected
