"""Who may open a stream, and how it ends: refused or closed with the reason by either way, and forgotten when left."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from app.api.links import SEND_S
from app.api.resources import LINKS
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.integration.test_api_stream import progress_of
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.credentials import key_of
from tests.support.following import LIST, by_events, by_socket, events_of, first_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("sqlite")  # what is told is in Redis


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings, reread_s=0.2) as running:
        yield running


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
