"""A listener on every address of loopback that notices who connects, and answers nobody anything."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Listener:
    """Counts connections to its port, over IPv4 and IPv6."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Notice a connection, and close it."""
        self.connections += 1
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    """Listen on a free port during the block."""
    listener = Listener()
    first = await asyncio.start_server(listener.serve, "0.0.0.0", 0)  # noqa: S104  # all of 127.0.0.0/8
    listener.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(listener.serve, "::1", listener.port)
    async with first, second:
        yield listener
