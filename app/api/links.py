"""The two ways in which a client follows: a websocket, and server-sent events. Imported by the API alone."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from app.api.auth import Caller
from app.api.news import CLOSED, Message, StreamClosed, message_of
from app.errors import TooManyStreams

HEARTBEAT_S = 20.0
SEND_S = 10.0  # a client that has not taken a message by then is cut
EVENT_STREAM = "text/event-stream"

_CLOSE_S = 2.0
_MAX_HEARD = 4096  # bytes of one message from a client; none is expected
_LOOK_S = 1.0  # between two looks at whether a client that only listens is still there
_PIECE = 16 * 1024
_RETRY_MS = 2000  # after which a browser comes back


class Link(Protocol):
    """A client that is being told something."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages; raise TimeoutError for a client that does not take them, ConnectionResetError for none."""

    async def close(self, code: int, reason: str) -> None:
        """End in good order, as far as the client lets that happen soon."""

    async def gone(self) -> None:
        """Return once the client has left, or the link was closed; raise TimeoutError for one that does not read."""


class Links:
    """Who follows right now, in this process."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit  # for each caller; 0 is none
        self._open: dict[Link, str] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def hold(self, link: Link, caller: Caller) -> Iterator[None]:
        """Count a link for the length of the block; raise TooManyStreams where a caller has enough of them."""
        user_id = caller.user_id
        if self._limit and not caller.is_admin and sum(user == user_id for user in self._open.values()) >= self._limit:
            raise TooManyStreams(f"You follow {self._limit} streams here already; close one first.", retry_after_s=5)
        self._open[link] = user_id
        try:
            yield
        finally:
            del self._open[link]

    async def close_all(self) -> None:
        """Tell every client that this process goes away; they may come back to another."""
        async with asyncio.TaskGroup() as group:
            for link in tuple(self._open):
                group.create_task(link.close(WSCloseCode.GOING_AWAY, "the service restarts"))


class SocketLink:
    """A websocket."""

    def __init__(self) -> None:
        self.response = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, timeout=_CLOSE_S, compress=False, max_msg_size=_MAX_HEARD
        )

    def is_wanted(self, request: web.Request) -> bool:
        """Whether the request asks for a websocket."""
        return bool(self.response.can_prepare(request).ok)

    async def open(self, request: web.Request) -> None:
        """Answer the handshake."""
        await self.response.prepare(request)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send each message as a text frame."""
        for message in messages:
            async with asyncio.timeout(SEND_S):
                await self.response.send_frame(message.body, WSMsgType.TEXT)

    async def close(self, code: int, reason: str) -> None:
        """Say why, and wait a little for the client to agree."""
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(_CLOSE_S + 1):
                await self.response.close(code=code, message=_cut(reason))

    async def gone(self) -> None:
        """Return once the connection is closed, by whichever side; what clients say is not listened to."""
        async for _ in self.response:
            pass


class EventSourceLink:
    """A stream of server-sent events."""

    def __init__(self) -> None:
        headers = {hdrs.CONTENT_TYPE: EVENT_STREAM, "X-Accel-Buffering": "no"}  # proxies pass each event on at once
        self.response = web.StreamResponse(headers=headers)
        self._request: web.Request | None = None
        self._closed = asyncio.Event()

    async def open(self, request: web.Request) -> None:
        """Send the headers."""
        self._request = request
        await self.response.prepare(request)
        await self._write(b"retry: %d\n\n" % _RETRY_MS)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send each message as an event; small ones go together."""
        piece = bytearray()
        for message in messages:
            piece += _event(message)
            if len(piece) > _PIECE:
                await self._write(bytes(piece))
                piece.clear()
        if piece:
            await self._write(bytes(piece))

    async def close(self, code: int, reason: str) -> None:
        """Say why in a last event."""
        if self._closed.is_set():
            return
        self._closed.set()
        last = message_of("", CLOSED, StreamClosed(code=code, reason=reason))
        with suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(_CLOSE_S):
                await self.response.write(_event(last))
                await self.response.write_eof()

    async def gone(self) -> None:
        """Send heartbeats until the client has left, of which nothing but the transport tells."""
        looks = 0
        while not self._closed.is_set() and self._is_connected():
            looks += 1
            if looks * _LOOK_S >= HEARTBEAT_S:
                looks = 0
                with suppress(ConnectionResetError):
                    await self._write(b":\n\n")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _LOOK_S)

    def _is_connected(self) -> bool:
        transport = self._request.transport if self._request is not None else None
        return transport is not None and not transport.is_closing()

    async def _write(self, content: bytes) -> None:
        if self._closed.is_set():
            raise ConnectionResetError
        async with asyncio.timeout(SEND_S):
            await self.response.write(content)


def _event(message: Message) -> bytes:
    place = f"id: {message.id}\n" if message.id else ""
    return f"{place}event: {message.type}\ndata: ".encode() + message.body + b"\n\n"


def _cut(reason: str) -> bytes:
    """Return as much of a reason as a close frame holds, whole characters only."""
    return reason.encode()[:120].decode(errors="ignore").encode()
