"""Coming back to a stream: cut anywhere, by either way, a client sees every event once; a gap is told."""

import asyncio
import random
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import orjson
import pytest

from app.api import hub, watch
from app.api.hub import EVERYBODY
from app.api.links import SEND_S
from app.api.resources import HUB, LINKS
from app.jobs.status import Status
from app.live import outbox
from app.live.events import ending_of
from app.live.workers import _silent_workers, beat, tell_of_lost
from app.queue import keys
from app.queue.connect import Redis
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.integration.test_api_stream import progress_of
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.credentials import key_of
from tests.support.waiting import eventually
from tests.support.workers import heartbeat
from workers.pulse import Pulse

pytestmark = pytest.mark.databases("sqlite")  # what is resumed is in Redis

LIST, ENDS = "/api/events", {"task.completed", "task.failed", "task.cancelled"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, reread_s=0.2) as running:
        yield running


async def by_socket(api: ApiUnderTest, path: str, after: str = "", key: str = ADA_KEY) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {key}"}
    query = {"after": after} if after else {}
    async with api.client.ws_connect(path, params=query, headers=headers) as stream:
        async for message in stream:
            yield message.json()
        yield {"type": "stream.closed", "data": {"code": stream.close_code}}


async def by_events(api: ApiUnderTest, path: str, after: str = "", key: str = ADA_KEY) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    headers |= {"Last-Event-ID": after} if after else {}
    async with api.client.get(path, headers=headers) as answer:
        if answer.status == 204:
            yield {"type": "stream.closed", "data": {"code": 1000}}
            return
        assert (answer.status, answer.content_type) == (200, "text/event-stream"), await answer.text()
        async for event in events_of(answer.content):
            yield event


async def events_of(content: asyncio.StreamReader | Any) -> AsyncIterator[Any]:
    fields: dict[str, str] = {}
    async for raw in content:
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line:
            if "data" in fields:
                message = orjson.loads(fields["data"])
                assert (message["type"], message["id"]) == (fields["event"], fields.get("id", ""))
                yield message
            fields = {}


WAYS = [pytest.param(by_socket, id="websocket"), pytest.param(by_events, id="sse")]
Way = Callable[..., AsyncIterator[Any]]


async def follow_with_cuts(way: Way, api: ApiUnderTest, path: str, rng: random.Random, seen: list[Any]) -> int:
    """Follow until the stream ends or somebody stops it, leaving it every few messages; return the close code."""
    after = ""
    while True:
        left = rng.randint(1, 6)
        async with aclosing(way(api, path, after)) as stream:  # type: ignore[type-var]  # it is a generator
            async for message in stream:
                if message["type"] == "stream.closed":
                    return int(message["data"]["code"])
                seen.append(message)
                after = message["id"]
                left -= 1
                if left == 0:
                    break
        await asyncio.sleep(rng.random() * 0.01)


async def live(api: ApiUnderTest, rng: random.Random, *, steps: int = 25) -> str:
    """Let a job of ada's be started, report, be retried, and end; return its id."""
    (job,) = await house.submit(api.house)
    for attempt in (1, 2):
        (started,) = await eventually(lambda: house.start(api.house))
        for step in range(1, steps + 1):
            api.house.outbox.post(progress_of(job.id, step * 100 / (steps + 1), attempt))
            await asyncio.sleep(rng.random() * 0.01)
        if attempt == 1:
            await house.settle(api.house, started, Status.PENDING, due_at=started.started_at)
        else:
            await house.settle(api.house, started)
    return job.id


def told(messages: list[Any], task_id: str) -> list[tuple[str, int, float]]:
    return [
        (message["type"], message["data"].get("attempt", 0), message["data"]["progress"])
        for message in messages
        if message["data"].get("task_id") == task_id and message["type"] != "task.snapshot"
    ]


def check_story(story: list[tuple[str, int, float]]) -> None:
    """Every step once and in order; reports of progress may be left out, but none comes twice or goes back."""
    steps = [(name, attempt) for name, attempt, _ in story if name not in {"task.progress", *ENDS}]
    assert steps == [("task.submitted", 0), ("task.started", 1), ("task.retrying", 1), ("task.started", 2)]
    reports = [(attempt, progress) for name, attempt, progress in story if name == "task.progress"]
    assert reports == sorted(set(reports))
    assert story[-1][0] == "task.completed"
    assert sum(name in ENDS for name, _, _ in story) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(2))
async def test_a_list_cut_at_random_shows_every_event_of_every_task_once(
    api: ApiUnderTest, way: Way, seed: int
) -> None:
    rng = random.Random(seed)
    seen: list[Any] = []
    following = asyncio.create_task(follow_with_cuts(way, api, LIST, rng, seen))
    await eventually(lambda: seen)

    tasks = [await live(api, rng) for _ in range(3)]
    await eventually(lambda: [m["data"].get("task_id") for m in seen if m["type"] in ENDS] == tasks, within=10)
    following.cancel()

    assert len(seen) > 60
    assert [message["type"] for message in seen].count("stream.gap") == 0
    for task in tasks:
        check_story(told(seen, task))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(2))
async def test_a_task_cut_at_random_shows_every_event_once_and_its_end(api: ApiUnderTest, way: Way, seed: int) -> None:
    rng = random.Random(seed)
    seen: list[Any] = []
    job = await house.start_one(api.house)
    following = asyncio.create_task(follow_with_cuts(way, api, f"/api/tasks/{job.id}/events", rng, seen))
    await eventually(lambda: seen)

    for step in range(1, 61):
        api.house.outbox.post(progress_of(job.id, step * 1.5))
        await asyncio.sleep(rng.random() * 0.01)
    await house.settle(api.house, job)
    code = await following

    names = [message["type"] for message in seen]
    reports = [message["data"]["progress"] for message in seen if message["type"] == "task.progress"]
    assert (names.count("task.snapshot"), names.count("task.completed"), names[-1]) == (1, 1, "task.completed")
    assert reports == sorted(set(reports))
    assert len(reports) > 30
    assert (seen[-1]["data"]["result"], code) == ({"text": "done"}, 1000)


@pytest.mark.parametrize("way", WAYS)
async def test_who_has_seen_the_end_is_not_told_it_again(api: ApiUnderTest, way: Way) -> None:
    job = await house.start_one(api.house)
    await house.settle(api.house, job)
    path = f"/api/tasks/{job.id}/events"
    first = [message async for message in way(api, path)]

    again = [message async for message in way(api, path, first[-2]["id"])]

    assert [message["type"] for message in first] == ["task.snapshot", "task.completed", "stream.closed"]
    assert [message["type"] for message in again] == ["stream.closed"]
    assert again[0]["data"]["code"] == 1000


async def first_of(stream: AsyncIterator[Any], count: int) -> list[Any]:
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


async def trim(api: ApiUnderTest) -> None:
    api.house.outbox.post(progress_of("another", 1.0))
    await eventually(lambda: api.house.redis.exists(keys.progress("another")))
    await api.house.redis.xtrim(keys.EVENTS, maxlen=1, approximate=False)


async def lose_all(api: ApiUnderTest) -> None:
    await api.house.redis.flushdb()


async def set_epoch(api: ApiUnderTest, epoch: str) -> None:
    await house.reply(api.house.redis.hset(keys.EPOCH, "counter", epoch))


async def live_again(api: ApiUnderTest) -> None:
    await set_epoch(api, "7")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", [trim, lose_all, live_again])
async def test_whose_position_is_gone_is_told_of_a_gap_and_gets_a_fresh_snapshot(
    api: ApiUnderTest, way: Way, loss: Callable[[ApiUnderTest], Any]
) -> None:
    await set_epoch(api, "3")
    job = await house.start_one(api.house)
    path = f"/api/tasks/{job.id}/events"
    async with aclosing(way(api, path)) as stream:  # type: ignore[type-var]
        (snapshot,) = await first_of(stream, 1)
    await eventually(lambda: len(api.app[LINKS]) == 0)
    await loss(api)

    async with aclosing(way(api, path, snapshot["id"])) as stream:  # type: ignore[type-var]
        gap, fresh = await first_of(stream, 2)
    async with aclosing(way(api, LIST, snapshot["id"])) as stream:  # type: ignore[type-var]
        of_list = await first_of(stream, 3)

    assert (gap["type"], gap["data"]["after"], fresh["type"]) == ("stream.gap", snapshot["id"], "task.snapshot")
    assert [message["type"] for message in of_list] == ["stream.gap", "task.snapshot", "stream.opened"]
    assert {message["id"] for message in (gap, *of_list[:2])} == {""}  # who is cut off here begins anew


@pytest.mark.parametrize("way", WAYS)
async def test_followers_hear_of_a_gap_when_redis_loses_everything_under_them(api: ApiUnderTest, way: Way) -> None:
    await set_epoch(api, "3")
    job = await house.start_one(api.house)
    async with (
        aclosing(way(api, f"/api/tasks/{job.id}/events")) as alone,  # type: ignore[type-var]
        aclosing(way(api, LIST)) as together,  # type: ignore[type-var]
    ):
        await first_of(alone, 1)
        begun = await first_of(together, 2)
        await api.house.redis.flushdb()

        heard = [message["type"] for message in [*await first_of(alone, 2), *begun, *await first_of(together, 3)]]

    begin = ["task.snapshot", "stream.opened"]
    assert heard == ["stream.gap", "task.snapshot", *begin, "stream.gap", *begin]


async def test_a_list_hears_of_an_end_whose_event_was_lost(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    async with aclosing(by_socket(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        job = await house.start_one(api.house)
        heard = await first_of(stream, 2)
        monkeypatch.setattr(api.house.outbox, "post", lambda *_: None)
        await house.settle(api.house, job)
        heard += await first_of(stream, 1)

    assert [message["type"] for message in heard] == ["task.submitted", "task.started", "task.completed"]


async def test_a_list_hears_of_a_job_whose_every_event_was_lost(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_ON_ITS_WAY", timedelta())
    async with aclosing(by_socket(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        with monkeypatch.context() as silence:
            silence.setattr(api.house.outbox, "post_all", lambda _: None)
            lost = await house.start_one(api.house)
            await house.settle(api.house, lost)
        (ended,) = await first_of(stream, 1)
        heard = await house.start_one(api.house)
        after = await first_of(stream, 2)

    assert (ended["type"], ended["data"]["task_id"]) == ("task.completed", lost.id)
    assert [message["data"]["task_id"] for message in after] == [heard.id, heard.id]


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
async def test_who_follows_hears_of_a_gap_where_a_process_had_to_drop_events(
    api: ApiUnderTest, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = await house.submit(api.house)
    async with aclosing(way(api, LIST)) as stream:  # type: ignore[type-var]
        _, opened = await first_of(stream, 2)
        monkeypatch.setattr(outbox, "_MAX_WAITING", 3)
        api.house.outbox._waiting = deque(maxlen=3)
        api.house.outbox.post_all((progress_of(job.id, percent), None) for percent in (1.0, 2.0, 3.0, 4.0))
        heard = await first_of(stream, 4)
    async with aclosing(way(api, LIST, opened["id"])) as stream:  # type: ignore[type-var]
        later = await first_of(stream, 3)

    begin = ["stream.gap", "task.snapshot", "stream.opened"]
    assert [message["type"] for message in heard] == [*begin, "task.progress"]
    assert [message["type"] for message in later] == begin


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


async def test_a_resume_after_the_end_was_lost_tells_the_end(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await house.start_one(api.house)
    path = f"/api/tasks/{job.id}/events"
    async with aclosing(by_events(api, path)) as stream:  # type: ignore[type-var]
        (snapshot,) = await first_of(stream, 1)
    monkeypatch.setattr(api.house.outbox, "post", lambda *_: None)
    await house.settle(api.house, job)

    heard = [message async for message in by_events(api, path, snapshot["id"])]

    assert [message["type"] for message in heard] == ["task.completed", "stream.closed"]


async def test_what_was_told_late_or_twice_is_told_once(api: ApiUnderTest) -> None:
    async with aclosing(by_socket(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        job = await house.start_one(api.house)
        heard = await first_of(stream, 2)
    await eventually(lambda: len(api.app[LINKS]) == 0)
    running = ending_of(await house.row(api.house, job.id))
    api.house.outbox.post(replace(running, type="task.submitted", status=Status.PENDING, attempt=0))
    api.house.outbox.post(running)
    api.house.outbox.post(progress_of(job.id, 10.0))
    await eventually(lambda: api.house.redis.exists(keys.progress(job.id)))

    async with aclosing(by_socket(api, LIST, heard[-1]["id"])) as stream:  # type: ignore[type-var]
        heard += await first_of(stream, 1)

    assert [message["type"] for message in heard] == ["task.submitted", "task.started", "task.progress"]


async def test_what_another_process_told_already_is_not_told_again(api: ApiUnderTest, settings: Settings) -> None:
    async with aclosing(by_socket(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        job = await house.start_one(api.house)
        heard = await first_of(stream, 2)
        hub = api.app[HUB]
        async with hub.follow(house_interest()) as behind:  # as a process that has not read as far
            behind.since = behind.since.at("1-0")
            behind.skip(hub.position)
            api.house.outbox.post(progress_of(job.id, 10.0))
            (news,) = await behind.take()
            behind.offer(replace_position(news, heard[-1]["id"].partition(".")[2]))
            behind.offer(news)
            taken = await behind.take()

    assert [found.event.type for found in taken] == ["task.progress"]


def house_interest() -> Any:
    from app.api.hub import Interest

    return Interest(room=EVERYBODY)


def replace_position(news: Any, entry: str) -> Any:
    from app.api.hub import News

    return News(replace(news.event, type="task.started"), news.position.at(entry))


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


@pytest.mark.parametrize(
    ("path", "key", "accept", "status"),
    [
        (LIST, None, "text/event-stream", 401),
        (LIST, ADA_KEY, "*/*", 426),
        (LIST, ADA_KEY, "application/json", 406),
        (f"{LIST}?after=nonsense", ADA_KEY, "text/event-stream", 400),
        (f"{LIST}?status=nonsense", ADA_KEY, "text/event-stream", 400),
        (f"{LIST}?type=nonsense", ADA_KEY, "text/event-stream", 400),
        (f"{LIST}?colour=red", ADA_KEY, "text/event-stream", 422),
        ("/api/tasks/none/events", ADA_KEY, "text/event-stream", 404),
        ("/api/tasks/none/events", ADA_KEY, "application/json", 406),
    ],
)
async def test_what_is_wrong_before_the_stream_begins_is_a_problem(
    api: ApiUnderTest, path: str, key: str | None, accept: str, status: int
) -> None:
    answer = await api.ask("GET", path, key=key, headers={"Accept": accept})

    assert (answer.status, answer.json["status"]) == (status, status)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert (answer.headers.get("Upgrade") == "websocket") == (status == 426)


@pytest.mark.parametrize(("query", "code"), [("after=nonsense", 4400), ("status=nonsense", 4400)])
async def test_the_same_on_a_websocket_is_its_close_code(api: ApiUnderTest, query: str, code: int) -> None:
    (closed,) = [message async for message in by_socket(api, f"/ws/tasks?{query}")]

    assert closed["data"]["code"] == code


async def test_a_key_without_the_scope_to_read_follows_nothing(api: ApiUnderTest) -> None:
    _, writer = await key_of(api, "ada", "tasks:write")

    (closed,) = [message async for message in by_socket(api, LIST, key=writer)]
    refused = await api.ask("GET", LIST, key=writer, headers={"Accept": "text/event-stream"})

    assert (closed["data"]["code"], refused.status) == (4403, 403)


async def test_who_follows_too_much_is_refused_one_more_by_either_way(settings: Settings) -> None:
    async with (
        running_api(settings.model_copy(update={"streams_per_caller": 1})) as api,
        aclosing(by_socket(api, LIST)) as stream,  # type: ignore[type-var]
        aclosing(by_socket(api, LIST, key=ADMIN_KEY)) as exempt,  # type: ignore[type-var]
        aclosing(by_socket(api, LIST, key=ADMIN_KEY)) as exempt_too,  # type: ignore[type-var]
    ):
        for open_stream in (stream, exempt, exempt_too):
            await first_of(open_stream, 1)
        (closed,) = [message async for message in by_socket(api, LIST)]
        refused = await api.ask("GET", LIST, key=ADA_KEY, headers={"Accept": "text/event-stream"})
        allowed = await first_of(by_socket(api, LIST, key=BOB_KEY), 1)

    assert closed["data"]["code"] == 4429
    assert (refused.status, refused.json["code"], "Retry-After" in refused.headers) == (429, "too_many_streams", True)
    assert allowed[0]["type"] == "stream.opened"


async def test_server_sent_events_end_with_the_reason_when_the_service_restarts(api: ApiUnderTest) -> None:
    async with aclosing(by_events(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        await api.app[LINKS].close_all()
        rest = [message async for message in stream]

    assert [(message["type"], message["data"]["code"]) for message in rest] == [("stream.closed", 1001)]


async def test_server_sent_events_end_when_their_key_is_revoked(api: ApiUnderTest) -> None:
    key_id, key = await key_of(api, "ada")
    async with aclosing(by_events(api, LIST, key=key)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)
        await api.ask("POST", f"/api/keys/{key_id}/revoke")
        (closed,) = [message async for message in stream]

    assert closed["data"]["code"] == 4401


async def test_a_page_of_another_origin_opens_no_server_sent_events(api: ApiUnderTest) -> None:
    session = await api.ask("POST", "/api/auth/session", key=ADA_KEY)
    cookie = {"Cookie": session.headers["Set-Cookie"].partition(";")[0], "Accept": "text/event-stream"}
    assert api.client._base_url is not None
    answered = {}
    for origin in ("https://evil.example", "null", str(api.client._base_url)):
        async with api.client.get(LIST, headers=cookie | {"Origin": origin}) as answer:
            answered[origin] = answer.status

    assert list(answered.values()) == [403, 403, 200]


async def test_a_ticket_opens_one_stream_of_server_sent_events(api: ApiUnderTest) -> None:
    ticket = (await api.ask("POST", "/api/auth/ticket", key=ADA_KEY)).json["ticket"]
    accept = {"Accept": "text/event-stream"}
    async with api.client.get(f"{LIST}?ticket={ticket}", headers=accept) as answer:
        (opened,) = await first_of(events_of(answer.content), 1)
        again = await api.ask("GET", f"{LIST}?ticket={ticket}", key=None, headers=accept)

    assert (opened["type"], again.status) == ("stream.opened", 401)


async def test_an_idle_stream_of_server_sent_events_has_a_heartbeat(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.links._LOOK_S", 0.01)
    monkeypatch.setattr("app.api.links.HEARTBEAT_S", 0.03)
    headers = {"Authorization": f"Bearer {ADA_KEY}", "Accept": "text/event-stream"}

    async with api.client.get(LIST, headers=headers) as answer:
        async with asyncio.timeout(5):
            lines = [line async for line in until_heartbeat(answer.content)]

    assert lines[-1] == b":\n"


async def until_heartbeat(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for line in content:
        yield line
        if line == b":\n":
            return


async def test_who_leaves_server_sent_events_is_forgotten_soon(api: ApiUnderTest) -> None:
    async with aclosing(by_events(api, LIST)) as stream:  # type: ignore[type-var]
        await first_of(stream, 1)

    await eventually(lambda: len(api.app[LINKS]) == 0)


async def test_a_silent_reader_of_server_sent_events_is_cut_and_others_are_not_slowed(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.links.SEND_S", 0.5)
    job = await house.start_one(api.house)
    url = api.client._base_url
    assert url is not None
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    silent.connect((url.host, url.port))
    request = (
        f"GET {LIST} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
    )
    silent.sendall(request.encode())
    async with aclosing(by_events(api, LIST, key=ADMIN_KEY)) as quick:  # type: ignore[type-var]
        await first_of(quick, 1)
        await eventually(lambda: len(api.app[LINKS]) == 2)
        for attempt in range(2, 90):  # each of another attempt, so that none is coalesced: 20 MB in all
            api.house.outbox.post(replace(progress_of(job.id, 1.0, attempt), message="x" * 256 * 1024))
        heard = await first_of(without_the_start(quick), 88)
        await eventually(lambda: len(api.app[LINKS]) == 1, within=20)
    silent.close()

    assert len(heard) == 88
    assert SEND_S == 10.0


async def without_the_start(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for message in stream:
        if message["type"] == "task.progress":
            yield message
