"""The proxy of the chaos tests does to a connection what it says."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.chaos.proxy import Mood, Proxy, open_proxy
from tests.support.waiting import eventually

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LONG = b"x" * 5000 + b"\n"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionResetError):
        while line := await reader.readline():
            writer.write(line)
    writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that echoes lines."""
    ended: list[asyncio.StreamWriter] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _echo(reader, writer)
        ended.append(writer)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        async with open_proxy(server.sockets[0].getsockname()[1]) as proxy:
            yield proxy
        for writer in ended:
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()


@pytest.fixture
async def dial(proxy: Proxy) -> AsyncIterator[Callable[[], Coroutine[Any, Any, Line]]]:
    lines: list[Line] = []

    async def open_line() -> Line:
        lines.append(await asyncio.open_connection("127.0.0.1", proxy.port))
        return lines[-1]

    yield open_line
    for _, writer in lines:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


Dial = Callable[[], Coroutine[Any, Any, Line]]


async def say(line: Line, text: bytes = b"hello\n") -> bytes:
    line[1].write(text)
    return await line[0].readline()


async def test_a_fair_proxy_hands_everything_on(proxy: Proxy, dial: Dial) -> None:
    line = await dial()

    assert await say(line, LONG) == LONG
    assert proxy.passed == 2 * len(LONG)


async def test_a_cut_ends_open_connections_and_lets_new_ones_in(proxy: Proxy, dial: Dial) -> None:
    line = await dial()
    await say(line)

    assert proxy.cut() == 1
    assert await line[0].read() == b""
    assert await say(await dial()) == b"hello\n"


async def test_a_proxy_that_refuses_closes_what_is_open_and_what_comes(proxy: Proxy, dial: Dial) -> None:
    line = await dial()
    await say(line)

    proxy.become(Mood.REFUSE)

    assert await line[0].read() == b""
    assert await (await dial())[0].read() == b""


@pytest.mark.parametrize("mood", [Mood.DEAF, Mood.MUTE])
async def test_a_link_that_stalls_one_way_stays_open_and_loses_nothing(proxy: Proxy, dial: Dial, mood: Mood) -> None:
    line = await dial()
    await say(line)

    proxy.become(mood)
    waiting = asyncio.create_task(say(line, b"later\n"))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    proxy.become(Mood.FAIR)

    assert not done
    assert await waiting == b"later\n"


async def test_a_slow_link_delays_every_piece(proxy: Proxy, dial: Dial) -> None:
    line = await dial()
    proxy.latency_s = 0.1
    proxy.become(Mood.SLOW)
    before = time.monotonic()

    assert await say(line) == b"hello\n"
    assert time.monotonic() - before >= 0.2


async def test_a_reset_comes_in_the_middle_of_one_answer(proxy: Proxy, dial: Dial) -> None:
    line = await dial()
    await say(line)
    proxy.become(Mood.RESET)

    line[1].write(LONG)
    with pytest.raises(ConnectionResetError):
        await line[0].readexactly(len(LONG))

    assert await say(await dial(), LONG) == LONG
    assert await eventually(lambda: proxy.open_links == 1)
