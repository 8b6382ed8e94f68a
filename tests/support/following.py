"""Following streams as clients do: over a websocket or by server-sent events, from anywhere, a few messages or all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from tests.support.api import ADA_KEY, ApiUnderTest

LIST = "/api/events"


async def by_socket(api: ApiUnderTest, path: str, after: str = "", key: str = ADA_KEY) -> AsyncIterator[Any]:
    """Follow over a websocket; the last message is its close code."""
    headers = {"Authorization": f"Bearer {key}"}
    query = {"after": after} if after else {}
    async with api.client.ws_connect(path, params=query, headers=headers) as stream:
        async for message in stream:
            yield message.json()
        yield {"type": "stream.closed", "data": {"code": stream.close_code}}


async def by_events(api: ApiUnderTest, path: str, after: str = "", key: str = ADA_KEY) -> AsyncIterator[Any]:
    """Follow by server-sent events; one that has nothing more to tell ends as a websocket does."""
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
    """Read the messages out of server-sent events."""
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


async def first_of(stream: AsyncIterator[Any], count: int) -> list[Any]:
    """Return so many messages of a stream, and leave it open."""
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]
