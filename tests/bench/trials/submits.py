"""Submits over HTTP: single ones from 64 connections beside a bare handler, and batches of 10,000 lines."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import orjson
import psutil

from tests.bench.trials.house import Terms
from tests.bench.trials.wire import api, connect, load, request

_LINES = 64
_WARM_UP = 500
_BATCH = 10_000
_TURNS = 5
_ONE = orjson.dumps({"parameters": {"wait_seconds": 0, "payload": {"user": "ada", "n": 7}}, "priority": 5})
_OF_BATCH = orjson.dumps({"task_name": "system.echo", "params": {"wait_seconds": 0}, "priority": 5})


async def run(terms: Terms) -> dict[str, float]:
    """Send ``jobs`` single submits to either, in turns, then ``rows`` in batches."""
    async with api(terms.settings()) as (port, pid), _bare() as bare_port:
        single, bare = request("POST", "/api/tasks/system/echo", _ONE), request("POST", "/", _ONE)
        await load(port, single, requests=_WARM_UP, lines=_LINES)
        await load(bare_port, bare, requests=_WARM_UP, lines=_LINES)
        served, ours, theirs, taken_s = psutil.Process(pid), [], [], 0.0
        for _ in range(_TURNS):  # what else the machine does then meets both
            before = _cpu_s(served)
            ours.append(await load(port, single, requests=terms.jobs // _TURNS, lines=_LINES))
            taken_s += _cpu_s(served) - before
            theirs.append(await load(bare_port, bare, requests=terms.jobs // _TURNS, lines=_LINES))
        batched = await _batches(port, terms.rows // _BATCH) if terms.rows else 0.0
    return {
        "submits_s": median(ours),
        "bare_s": median(theirs),
        "to_bare": median(one / other for one, other in zip(ours, theirs, strict=True)),
        "cpu_us": taken_s / (terms.jobs // _TURNS * _TURNS) * 1e6,
        "batched_s": batched,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _batches(port: int, batches: int) -> float:
    line = await connect(port)
    whole = request("POST", "/api/tasks/batch", b"\n".join([_OF_BATCH] * _BATCH), "application/x-ndjson")
    before = time.perf_counter()
    for _ in range(batches):
        status, body = await line.send(whole)
        assert status == 202, body[:300]
    return batches * _BATCH / (time.perf_counter() - before)


@asynccontextmanager
async def _bare() -> AsyncIterator[int]:
    command = [sys.executable, "-m", "tests.bench.trials", "plain_api"]
    given = orjson.dumps({"redis_url": "", "database_url": "", "directory": ""}).decode()
    child = await asyncio.create_subprocess_exec(*command, given, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        yield int(await child.stdout.readline())
    finally:
        child.kill()
        await child.wait()
