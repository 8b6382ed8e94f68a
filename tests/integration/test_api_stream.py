"""Following a task over a websocket: a snapshot, every newer event, and always the end."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from app.api.resources import LINKS, THROUGHPUT
from app.api.stream import TOO_SLOW
from app.errors import Unavailable
from app.installation import open_installation
from app.jobs.status import Status
from app.live.events import Event, ending_of
from app.queue import keys
from app.queue.connect import Redis
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.waiting import eventually


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


@asynccontextmanager
async def following(
    api: ApiUnderTest, task_id: str, *, key: str | None = ADMIN_KEY, path: str = "/api/tasks/{}/events"
) -> AsyncIterator[ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with api.client.ws_connect(path.format(task_id), headers=headers) as stream:
        yield stream


async def hear(stream: ClientWebSocketResponse) -> Any:
    message = await stream.receive(timeout=10)
    assert message.type is WSMsgType.TEXT, message
    return message.json()


async def hear_until(stream: ClientWebSocketResponse, name: str) -> Any:
    while (message := await hear(stream))["type"] != name:
        pass
    return message


async def closing_code(stream: ClientWebSocketResponse) -> int | None:
    message = await stream.receive(timeout=10)
    assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED}, message
    return stream.close_code


def progress_of(job_id: str, percent: float, attempt: int = 1) -> Event:
    return Event(
        type="task.progress",
        job_id=job_id,
        kind="test.note",
        queue="alpha",
        owner="ada",
        user_id=None,
        status=Status.RUNNING,
        attempt=attempt,
        progress=percent,
        message="halfway",
        stage="middle",
    )


@pytest.mark.parametrize("path", ["/api/tasks/{}/events", "/api/v1/tasks/{}/events", "/ws/tasks/{}"])
async def test_a_follower_sees_the_whole_life_of_a_task(api: ApiUnderTest, path: str) -> None:
    task = await api.submit(key=ADA_KEY)
    async with following(api, task["task_id"], key=ADA_KEY, path=path) as stream:
        snapshot = await hear(stream)
        (job,) = await house.start(api.house)
        started = await hear(stream)
        api.house.outbox.post(progress_of(job.id, 50.0))
        progress = await hear(stream)
        await house.settle(api.house, job, progress=100.0)
        ended = await hear(stream)
        code = await closing_code(stream)

    assert (snapshot["type"], snapshot["data"]) == ("task.snapshot", {k: v for k, v in task.items() if k != "message"})
    assert (started["type"], started["data"]["status"], started["data"]["attempt"]) == ("task.started", "running", 1)
    assert (progress["type"], progress["data"]["progress"]) == ("task.progress", 50.0)
    assert (progress["data"]["progress_message"], progress["data"]["stage"]) == ("halfway", "middle")
    assert (ended["type"], ended["data"]["result"], ended["data"]["progress"]) == (
        "task.completed",
        {"text": "done"},
        100,
    )
    assert code == 1000
    assert all(set(message) == {"id", "type", "timestamp", "data"} for message in (snapshot, started, ended))
    assert started["timestamp"].endswith("Z")


async def test_who_comes_late_sees_how_it_stands_and_nothing_older(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    api.house.outbox.post(progress_of(job.id, 40.0))
    await eventually(lambda: api.house.redis.exists(keys.progress(job.id)))

    async with following(api, job.id) as stream:
        snapshot = await hear(stream)
        api.house.outbox.post(progress_of(job.id, 30.0))
        api.house.outbox.post(progress_of(job.id, 60.0))
        following_message = await hear(stream)

    assert (snapshot["data"]["progress"], snapshot["data"]["state"]) == (40, "PROGRESS")
    assert following_message["data"]["progress"] == 60


async def test_who_comes_after_the_end_is_told_the_end(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    await house.settle(api.house, job, Status.FAILED)

    async with following(api, job.id) as stream:
        names = [(await hear(stream))["type"], (await hear(stream))["type"]]
        code = await closing_code(stream)

    assert (names, code) == (["task.snapshot", "task.failed"], 1000)


async def test_a_retry_is_told_and_a_cancel_while_it_waits_ends_the_stream(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    async with following(api, job.id) as stream:
        await hear(stream)
        await house.settle(api.house, job, Status.PENDING)
        retrying = await hear(stream)
        await api.ask("DELETE", f"/api/tasks/{job.id}")
        cancelled = await hear(stream)

    assert (retrying["type"], retrying["data"]["error_message"]) == ("task.retrying", "oops")
    assert (cancelled["type"], cancelled["data"]["status"]) == ("task.cancelled", "cancelled")


async def test_the_end_is_told_although_its_event_was_lost(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_api(settings, reread_s=0.05) as api:
        job = await house.start_one(api.house)
        async with following(api, job.id) as stream:
            await hear_until(stream, "task.snapshot")
            monkeypatch.setattr(api.house.outbox, "post", lambda *_: None)
            await api.house.redis.delete(keys.EVENTS)
            await house.settle(api.house, job)
            ended = await hear_until(stream, "task.completed")

    assert ended["data"]["result"] == {"text": "done"}


async def test_the_end_is_told_while_redis_is_out(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with running_api(nowhere, reread_s=0.05) as api:
        task = await api.submit()
        async with following(api, task["task_id"]) as stream:
            first = await hear(stream)
            await api.ask("DELETE", f"/api/tasks/{task['task_id']}")
            last = await hear(stream)

    assert (first["type"], last["type"]) == ("task.snapshot", "task.cancelled")


async def unblock_reader(redis: Redis) -> None:
    """Let Redis answer whoever waits for events with an error, as it does when it becomes a replica."""
    database = str(redis.connection_pool.connection_kwargs.get("db", 0))

    async def is_unblocked() -> bool:
        waiting = [one["id"] for one in await redis.client_list() if (one["cmd"], one["db"]) == ("xread", database)]
        return any([await redis.execute_command("CLIENT UNBLOCK", found, "ERROR") for found in waiting])  # type: ignore[no-untyped-call]  # redis-py gives it no types

    await eventually(is_unblocked)


async def test_a_follower_hears_on_after_redis_has_answered_the_reader_with_an_error(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    async with following(api, job.id) as stream:
        await hear(stream)
        await unblock_reader(api.house.redis)
        await house.settle(api.house, job)
        ended = await hear_until(stream, "task.completed")

    assert ended["data"]["task_id"] == job.id


async def test_a_follower_hears_of_what_comes_although_no_stream_was_where_it_belongs(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    await api.house.redis.delete(keys.EVENTS)
    await api.house.redis.set(keys.EVENTS, "a string")
    async with following(api, job.id) as stream:
        await hear(stream)
        await house.settle(api.house, job)
        ended = await hear_until(stream, "task.completed")

    assert ended["data"]["task_id"] == job.id


async def test_rates_are_known_again_once_what_stood_in_the_place_of_the_counters_is_moved_aside(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.throughput._EVERY_S", 0.01)
    async with open_installation(settings) as spoilt:
        await spoilt.redis.set(keys.TOTALS, "a string")

    async with running_api(settings) as api:
        await eventually(lambda: api.app[THROUGHPUT].rate("alpha") is not None)

        assert await api.house.redis.exists(keys.ASIDE + keys.TOTALS)


async def test_an_event_that_nobody_can_read_does_not_end_the_stream(settings: Settings) -> None:
    async with running_api(settings, reread_s=0.05) as api:
        job = await house.start_one(api.house)
        async with following(api, job.id) as stream:
            await hear(stream)
            await api.house.redis.xadd(keys.EVENTS, {"e": b'{"from": "the future"}'})
            await house.settle(api.house, job)
            ended = await hear_until(stream, "task.completed")

    assert ended["data"]["status"] == "completed"


async def test_an_end_that_the_row_does_not_bear_out_is_not_told(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    async with following(api, job.id) as stream:
        await hear(stream)
        running = await house.row(api.house, job.id)
        api.house.outbox.post(replace(ending_of(running), status=Status.COMPLETED))
        api.house.outbox.post(progress_of(job.id, 60.0))
        heard = await hear(stream)

    assert heard["type"] == "task.progress"


async def test_every_follower_of_a_task_is_told(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    async with following(api, job.id) as first, following(api, job.id) as second:
        await hear(first)
        await hear(second)
        await house.settle(api.house, job)
        names = [(await hear_until(stream, "task.completed"))["type"] for stream in (first, second)]

    assert names == ["task.completed"] * 2


async def test_the_reader_rests_and_wakes_with_its_followers(api: ApiUnderTest) -> None:
    for _ in range(3):
        job = await house.start_one(api.house)
        async with following(api, job.id) as stream:
            await hear(stream)
            await house.settle(api.house, job)
            ended = await hear_until(stream, "task.completed")
        assert ended["data"]["task_id"] == job.id


@pytest.mark.parametrize(
    ("key", "task", "code"),
    [(None, "own", 4401), ("wrong", "own", 4401), (BOB_KEY, "own", 4404), (ADA_KEY, "none", 4404)],
)
async def test_who_may_not_follow_is_told_by_the_close_code(
    api: ApiUnderTest, key: str | None, task: str, code: int
) -> None:
    task_id = (await api.submit(key=ADA_KEY))["task_id"] if task == "own" else "nonsense"

    async with following(api, task_id, key=key) as stream:
        assert await closing_code(stream) == code


@pytest.mark.parametrize(("name", "status"), [("token", 422), ("key", 422)])
async def test_a_key_in_the_query_string_opens_nothing(api: ApiUnderTest, name: str, status: int) -> None:
    task = await api.submit(key=ADA_KEY)

    with pytest.raises(WSServerHandshakeError) as refused:
        async with following(api, task["task_id"], key=None, path=f"/ws/tasks/{{}}?{name}={ADA_KEY}"):
            pass

    assert refused.value.status == status


async def test_while_the_database_is_out_a_follower_is_asked_to_come_back(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out(_: str) -> None:
        raise Unavailable

    monkeypatch.setattr(api.house.reader, "get", out)

    async with following(api, "any") as stream:
        assert await closing_code(stream) == 1013


async def test_a_client_that_does_not_read_is_cut_and_others_are_not_slowed(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.links.SEND_S", 0.5)
    job = await house.start_one(api.house)
    async with silent_follower(api, job.id) as reader, following(api, job.id) as quick:
        await hear(quick)
        for attempt in range(2, 90):  # each of another attempt, so that none is coalesced: 20 MB in all
            api.house.outbox.post(replace(progress_of(job.id, 1.0, attempt), message="x" * 256 * 1024))
        for _ in range(88):
            await hear(quick)
        await eventually(lambda: len(api.app[LINKS]) == 1, within=20)
        async with asyncio.timeout(10):
            left_unread = await reader.read(-1)

    assert left_unread.endswith(TOO_SLOW.to_bytes(2) + b"events were not taken in time")


@asynccontextmanager
async def silent_follower(api: ApiUnderTest, task_id: str) -> AsyncIterator[asyncio.StreamReader]:
    """Follow a task without ever reading, until the caller does."""
    url = api.client._base_url
    assert url is not None
    upgrade = {
        "Host": "here",
        "Authorization": f"Bearer {ADMIN_KEY}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    lines = [f"GET /ws/tasks/{task_id} HTTP/1.1", *(f"{name}: {value}" for name, value in upgrade.items())]
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await reader.readuntil(b"\r\n\r\n")
        yield reader
    finally:
        writer.close()


async def test_followers_are_told_that_the_service_goes_away(api: ApiUnderTest) -> None:
    task = await api.submit()
    async with following(api, task["task_id"]) as stream:
        await hear(stream)

        async with asyncio.TaskGroup() as group:
            group.create_task(api.app[LINKS].close_all())
            code = await closing_code(stream)

    assert code == 1001
