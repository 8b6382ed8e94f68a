"""An API process that is asked to stop: clients that hold a connection get their answer, and are sent elsewhere."""

import asyncio

import pytest
from aiohttp import web

from app.api.leaving import LEAVING, leave
from app.api.server import build_app, make_runner
from app.settings import Settings
from tests.support.house import open_house
from tests.support.waiting import eventually


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Ask whether the process is alive; return the head of the answer."""
    writer.write(b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
    await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
    return head


async def test_what_comes_on_an_open_connection_is_answered_and_sent_elsewhere(settings: Settings) -> None:
    async with open_house(settings) as house:
        runner = make_runner(app := build_app(house))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        where = runner.addresses[0][:2]
        reader, writer = await asyncio.open_connection(*where)
        first = await ask(reader, writer)

        leaving = asyncio.create_task(leave(app, runner))
        await eventually(app[LEAVING].is_set)
        last = await ask(reader, writer)

        await asyncio.wait_for(leaving, 10)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*where)
        assert await reader.read() == b""
        writer.close()
        await runner.cleanup()
    assert "200 ok" in first
    assert "connection: close" not in first
    assert "200 ok" in last
    assert "connection: close" in last
