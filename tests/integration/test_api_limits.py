"""What one process takes in: slow heads and bodies, long waits, many connections, more than there is room for."""

import asyncio
import io
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from app.api import reading
from app.jobs.catalogue import load_catalogue
from app.settings import Settings
from tests.support.api import ADA_KEY, ApiUnderTest, running_api
from tests.support.waiting import eventually

NOTE = "/api/tasks/test/note"
HEAD = b"GET /health HTTP/1.1\r\nHost: here\r\n"
LAST = HEAD + b"Connection: close\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    limits = {"idle_timeout_s": 0.6, "request_timeout_s": 0.5, "max_connections": 5, "max_bodies_mb": 1}
    async with running_api(settings.model_copy(update=limits)) as running:
        yield running


@asynccontextmanager
async def connected(api: ApiUnderTest) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection."""
    url = api.client._base_url
    assert url is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """Send a head that never ends, byte by byte; return after how many seconds the server has cut it."""
    started = time.monotonic()
    while time.monotonic() - started < 10:
        writer.write(b"x")
        try:
            if await asyncio.wait_for(reader.read(1), 0.05) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - started


async def test_a_head_that_comes_byte_by_byte_is_cut(api: ApiUnderTest) -> None:
    async with connected(api) as (reader, writer):
        writer.write(HEAD + b"X-Slow: ")

        assert 0.3 < await dribble(reader, writer) < 5


async def test_so_is_one_behind_a_good_request(api: ApiUnderTest) -> None:
    async with connected(api) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        await reader.readuntil(b"}")
        writer.write(HEAD + b"X-Slow: ")

        assert 0.3 < await dribble(reader, writer) < 5


async def test_a_body_that_dribbles_in_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BODY_S", 0.3)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with running_api(settings) as api:
        answer = await api.ask("POST", NOTE, data=slowly(), headers={"Content-Type": "application/json"})

    assert (answer.status, answer.json["code"]) == (408, "request_timeout")


async def test_a_request_that_takes_too_long_is_a_problem(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(api.house.reader, "page", for_ever)

    answer = await api.ask("GET", "/api/tasks")

    assert (answer.status, answer.json["code"]) == (504, "request_timeout")
    assert (await api.ask("GET", "/health")).status == 200


async def test_a_stream_that_has_begun_goes_on_beyond_the_time_limit(api: ApiUnderTest) -> None:
    task = await api.submit(key=ADA_KEY)
    headers = {"Authorization": f"Bearer {ADA_KEY}"}

    async with api.client.ws_connect(f"/ws/tasks/{task['task_id']}", headers=headers) as socket:
        await socket.receive(timeout=5)
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=1)
        await api.ask("DELETE", f"/api/tasks/{task['task_id']}")
        last = await socket.receive_json(timeout=5)

    assert last["type"] == "task.cancelled"


async def test_one_connection_too_many_is_reset_and_its_place_is_free_again(api: ApiUnderTest) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(connected(api))
        refused = await ask_raw(api, LAST)

    async def is_in() -> bool:
        return (await ask_raw(api, LAST)).startswith(b"HTTP/1.1 200")

    await eventually(is_in, within=5)
    assert refused == b""


async def test_what_there_is_no_room_for_is_refused_before_it_is_read(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_api(settings.model_copy(update={"max_bodies_mb": 1})) as api:
        go_on, accept = asyncio.Event(), api.house.lifecycle._writer.accept

        async def when_told(*jobs: Any) -> None:
            await go_on.wait()
            await accept(*jobs)

        monkeypatch.setattr(api.house.lifecycle._writer, "accept", when_told)
        asking = [asyncio.create_task(api.ask("POST", NOTE, json={"parameters": {}})) for _ in range(20)]
        done: set[asyncio.Task[Any]] = set()
        while len(done) < 4:
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(*asking)
        after = await api.ask("POST", NOTE, json={"parameters": {}})

    refused = [answer for answer in answers if answer.status == 503]
    assert (len(refused), after.status) == (4, 202)
    assert {(answer.json["code"], answer.headers["Retry-After"]) for answer in refused} == {("overloaded", "2")}


async def test_every_route_that_takes_a_body_refuses_one_too_long_declared_or_not(settings: Settings) -> None:
    async with running_api(settings, catalogue=load_catalogue()) as api:
        document = (await api.ask("GET", "/api/openapi.json")).json
        routes = [
            (re.sub(r"{\w+}", "x", path), method.upper())
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if "requestBody" in operation
        ]
        wrong = []
        for path, method in routes:
            for body in (io.BytesIO(bytes(17 * MIB)), endless()):
                answer = await api.ask(method, path, data=body, headers={"Content-Type": "application/json"})
                if (answer.status, answer.json["code"]) != (413, "too_large"):
                    wrong.append((method, path, answer.status))

    assert wrong == []
    assert len(routes) >= 40


async def endless() -> AsyncIterator[bytes]:
    for _ in range(1000):
        yield b" " * MIB


async def test_a_head_too_large_is_refused_without_a_traceback(api: ApiUnderTest) -> None:
    answers = [
        (await ask_raw(api, HEAD + b"X-Long: " + b"x" * 9000 + b"\r\n\r\n")),
        (await ask_raw(api, HEAD + b"".join(b"X-%d: x\r\n" % number for number in range(200)) + b"\r\n")),
        (await ask_raw(api, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: here\r\n\r\n")),
    ]

    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"400"] * 3
    assert all(b"application/problem+json" in answer and b'"broken_head"' in answer for answer in answers)
    assert not any(b"Traceback" in answer or b"<html" in answer.lower() for answer in answers)


async def ask_raw(api: ApiUnderTest, sent: bytes) -> bytes:
    """Send bytes on a connection of their own; return all that came back, nothing from one that was reset."""
    async with connected(api) as (reader, writer), asyncio.timeout(5):
        try:
            writer.write(sent)
            return await reader.read()
        except ConnectionError:
            return b""
