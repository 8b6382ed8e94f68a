"""Followers: how late 1,000 websockets hear of 100 progress events a second, with and without one that stalls."""

import asyncio
import base64
import os
import re
import socket
import time
from dataclasses import replace
from datetime import datetime

import aiohttp
import psutil

from app.announce import event_of
from app.clock import utc_now
from app.history.rows import NewJob
from app.installation import Installation
from app.jobs.status import Status
from app.orders import Order
from tests.bench.trials.house import NOOP, Nothing, Terms, open_house, percentile
from tests.bench.trials.wire import TOKEN, api

_TASKS = 10
_PER_SECOND = 100
_LISTENERS = 20  # of the followers; they look at the clock, the others only read
_STAMP = re.compile(r'"timestamp":"([^"]+)"')


async def run(terms: Terms) -> dict[str, float]:
    """Follow ten tasks with ``jobs`` websockets in all, for ``seconds``."""
    async with open_house(terms) as house, api(terms.settings()) as (port, pid):
        orders = [Order(job_type=NOOP, params=Nothing(), owner="admin")] * _TASKS
        tasks = await house.lifecycle.submit(orders)
        crowd = [await _follow(port, tasks[at % _TASKS].id) for at in range(terms.jobs - _LISTENERS)]
        readers = [asyncio.create_task(_discard(reader)) for reader, _ in crowd]
        spent = _cpu(pid)
        quiet = await _lags(house, port, tasks, terms.seconds)
        spent = _cpu(pid) - spent
        stalled = [_stall(port, job.id) for job in tasks[:1]]
        beside = await _lags(house, port, tasks, terms.seconds)
        for connection in stalled:
            connection.close()
        for reading in readers:
            reading.cancel()
        for _, writer in crowd:
            writer.close()
    heard = len(quiet) / (terms.seconds * _PER_SECOND * _LISTENERS / _TASKS)  # progress that came too late is left out
    messages = heard * terms.seconds * _PER_SECOND * terms.jobs / _TASKS
    return {
        "p99_ms": percentile(quiet, 0.99),
        "stalled_p99_ms": percentile(beside, 0.99),
        "cpu_us": spent / messages * 1e6,
        "heard": heard,
    }


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _lags(house: Installation, port: int, tasks: list[NewJob], seconds: float) -> list[float]:
    lags: list[float] = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        sockets = [await session.ws_connect(f"/api/tasks/{tasks[at % _TASKS].id}/events") for at in range(_LISTENERS)]
        listening = [asyncio.create_task(_listen(ws, lags)) for ws in sockets]
        await _publish(house, tasks, seconds)
        await asyncio.sleep(0.5)
        for task in listening:
            task.cancel()
        for ws in sockets:
            await ws.close()
    return lags


async def _publish(house: Installation, tasks: list[NewJob], seconds: float) -> None:
    """Post progress of one task after the other, a hundred a second."""
    begin, step = time.perf_counter(), 100 / (seconds * _PER_SECOND / _TASKS + 1)
    attempt = int(begin)  # later attempts are news whatever was seen before
    for at in range(int(seconds * _PER_SECOND)):
        await asyncio.sleep(max(0.0, begin + at / _PER_SECOND - time.perf_counter()))
        percent = round(step * (at // _TASKS + 1), 3)
        event = event_of(tasks[at % _TASKS], "task.progress", Status.RUNNING, attempt=attempt, progress=percent)
        house.outbox.post(replace(event, at=utc_now()))


async def _listen(ws: aiohttp.ClientWebSocketResponse, lags: list[float]) -> None:
    async for message in ws:
        if '"task.progress"' in message.data and (found := _STAMP.search(message.data)):
            sent = datetime.fromisoformat(found[1])
            lags.append((utc_now() - sent).total_seconds() * 1000)


async def _follow(port: int, job_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_upgrade(job_id))
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


def _stall(port: int, job_id: str) -> socket.socket:
    """Follow without ever reading."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(_upgrade(job_id))
    return connection


def _upgrade(job_id: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET /api/tasks/{job_id}/events HTTP/1.1",
        "Host: bench",
        f"Authorization: Bearer {TOKEN}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
