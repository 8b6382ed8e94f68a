"""A lean HTTP client and the API in a process of its own, so that the load costs less than what it measures."""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.settings import Settings
from tests.support.environment import environment_of

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)")
TOKEN = "bench-admin"


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[tuple[int, int]]:
    """Run the API as its users do; offers its port and its process id."""
    with tempfile.TemporaryFile() as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "serve", stdout=log, stderr=log, env=environment_of(settings)
        )
        try:
            yield await _port(child, log.fileno()), child.pid
        finally:
            child.terminate()
            await child.wait()


async def _port(child: asyncio.subprocess.Process, log: int) -> int:
    while child.returncode is None:
        said = os.pread(log, 1 << 20, 0)
        if found := _ADDRESS.search(said):
            return int(found[1])
        await asyncio.sleep(0.05)
    raise RuntimeError(os.pread(log, 1 << 20, 0).decode())


def request(method: str, path: str, body: bytes = b"", media_type: str = "application/json") -> bytes:
    """Return a whole request as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Line:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, whole: bytes) -> tuple[int, bytes]:
        """Send one request; return the status and the body of its answer."""
        self._writer.write(whole)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        return int(head[9:12]), body

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def connect(port: int) -> Line:
    """Open a connection to the API."""
    return Line(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 26))


async def load(port: int, whole: bytes, *, requests: int, lines: int) -> float:
    """Send the same request over ``lines`` connections at once; return answers a second."""
    open_lines = [await connect(port) for _ in range(lines)]
    left = iter(range(requests))

    async def work(line: Line) -> None:
        for _ in left:
            status, body = await line.send(whole)
            assert status < 300, (status, body[:300])

    before = time.perf_counter()
    await asyncio.gather(*map(work, open_lines))
    rate = requests / (time.perf_counter() - before)
    for line in open_lines:
        line.close()
    return rate


async def times(port: int, wholes: Sequence[bytes]) -> list[float]:
    """Send requests one after the other; return the milliseconds of each."""
    line, taken = await connect(port), []
    for whole in wholes:
        before = time.perf_counter()
        status, body = await line.send(whole)
        taken.append((time.perf_counter() - before) * 1000)
        assert status < 300, (status, body[:300])
    line.close()
    return taken
