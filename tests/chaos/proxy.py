"""A TCP proxy with ill will: it cuts, refuses, stalls one way, slows, or resets in the middle of an answer."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

_CHUNK = 16_384
_SHORT = 7  # bytes of an answer that get through before a reset: part of any, whole of none that matters


class Mood(Enum):
    """What the proxy does to connections."""

    FAIR = auto()  # hands everything on
    REFUSE = auto()  # closes what comes
    DEAF = auto()  # what the client sends is not handed on; the connection stays
    MUTE = auto()  # what the server answers is not handed on; the connection stays
    SLOW = auto()  # every piece waits for ``latency_s``
    RESET = auto()  # the next answer is cut after some bytes, with a reset


@dataclass(eq=False)
class _Link:
    """One connection through the proxy, and both its ends."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def cut(self, *, rudely: bool = False) -> None:
        for writer in self.writers:
            if rudely and (sock := writer.get_extra_info("socket")) is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
            writer.transport.abort() if rudely else writer.close()

    async def close(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Proxy:
    """Stands before one server. Its mood counts for open connections too, at once."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.passed = 0  # bytes handed on, both ways
        self.latency_s = 0.05
        self._target = (host, port)
        self._mood = Mood.FAIR
        self._fair = asyncio.Event()
        self._fair.set()
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def aim_at(self, port: int) -> None:
        """Stand before the server at another port from now on."""
        self._target = (self._target[0], port)

    @property
    def open_links(self) -> int:
        """How many connections go through."""
        return len(self._links)

    def become(self, mood: Mood) -> None:
        """Change the mood; a proxy that refuses also closes what is open."""
        self._mood = mood
        (self._fair.clear if mood in (Mood.DEAF, Mood.MUTE) else self._fair.set)()
        if mood is Mood.REFUSE:
            self.cut()

    def cut(self, *, rudely: bool = False) -> int:
        """Close every open connection, with a reset if ``rudely``; return how many there were."""
        count = len(self._links)
        for link in tuple(self._links):
            link.cut(rudely=rudely)
        return count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        link, task = _Link([writer]), asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._links.add(link)
        try:
            if self._mood is not Mood.REFUSE:
                answers, sink = await asyncio.open_connection(*self._target)
                link.writers.append(sink)
                await self._carry(link, reader, sink, answers, writer)
        except OSError:
            pass  # one of the ends has gone; so does the other
        finally:
            self._links.discard(link)
            await link.close()

    async def close(self) -> None:
        """Cut every connection, and wait until all are gone."""
        self.become(Mood.REFUSE)
        if self._serving:
            await asyncio.wait(self._serving, timeout=5)

    async def _carry(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.ensure_future(self._pump(link, reader, sink, Mood.DEAF)),
            asyncio.ensure_future(self._pump(link, answers, writer, Mood.MUTE)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stalled_by: Mood
    ) -> None:
        while piece := await reader.read(_CHUNK):
            if self._mood is Mood.SLOW:
                await asyncio.sleep(self.latency_s)
            while self._mood is stalled_by:
                await self._fair.wait()
            if self._mood is Mood.RESET and stalled_by is Mood.MUTE:
                self._mood = Mood.FAIR
                writer.write(piece[:_SHORT])
                await writer.drain()
                link.cut(rudely=True)
                return
            writer.write(piece)
            await writer.drain()
            self.passed += len(piece)


@asynccontextmanager
async def open_proxy(port: int, host: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    """Listen on a free port of loopback before the server at ``port``, during the block."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
