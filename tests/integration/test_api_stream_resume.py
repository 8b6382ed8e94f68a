"""Coming back to a stream: cut anywhere, by either way, a client sees every event once; a gap is told."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.api import hub
from app.api.hub import EVERYBODY
from app.api.resources import HUB, LINKS
from app.jobs.status import Status
from app.live import outbox
from app.live.events import ending_of
from app.queue import keys
from app.settings import Settings
from tests.integration.test_api_stream import progress_of
from tests.support import house
from tests.support.api import ApiUnderTest, running_api
from tests.support.following import LIST, WAYS, Way, by_events, by_socket, first_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("sqlite")  # what is resumed is in Redis

ENDS = {"task.completed", "task.failed", "task.cancelled"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, reread_s=0.2) as running:
        yield running


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
