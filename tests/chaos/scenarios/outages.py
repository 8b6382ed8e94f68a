"""Stores that are away: Redis emptied, Redis out, SQL out, the tail of Redis's file lost with the power."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import redis

from app.queue.connect import Redis, open_redis
from tests.chaos.bulk import count_offered, submit_many
from tests.chaos.checker import check
from tests.chaos.client import Client, open_session
from tests.chaos.figure import Figure
from tests.chaos.history import Ask, read_clients
from tests.chaos.journal import count_live
from tests.chaos.proxy import Mood, open_proxy
from tests.chaos.stage import Member, Stage, open_stage
from tests.support.waiting import eventually

_PACE_S = 0.05


async def redis_emptied(
    directory: Path,
    *,
    waiting: int,
    running: int,
    hold_s: float = 30.0,
    restart: bool = False,
    lease_s: float = 9.0,
    within_s: float = 120,
) -> list[Figure]:
    """Empty Redis (or bring it back without its file) under a backlog; measure until all of it is offered again."""
    what = "Redis restarted empty" if restart else "FLUSHALL"
    async with open_stage(directory, apis=0, workers=2, slots=running // 2, lease_s=lease_s) as stage:
        for worker in stage.workers:
            worker.start()
        await stage.ready()
        await submit_many(stage, running, wait_s=hold_s, priority=10)
        await eventually(lambda: stage.ledger.exists() and stage.ledger.read_bytes().count(b"begin") == running, 30)
        await submit_many(stage, waiting)
        _empty(stage, restart=restart)
        began = time.monotonic()
        client = open_redis(stage.redis.url)
        offered_s = await _until_offered(stage, client, within_s, began)
        await client.aclose(close_connection_pool=True)
        left_s = await stage.drained(within_s + 60)
        faults = check(await stage.history())
    return [
        Figure(
            name=f"{what}: {waiting} waiting and {running} running offered again", value=offered_s, unit="s", target=10
        ),
        Figure(name=f"{what}: everything done after that", value=left_s, unit="s"),
        Figure(name=f"{what}: broken promises", value=len(faults), unit="faults", target=0),
    ]


async def _until_offered(stage: Stage, client: Redis, within_s: float, began: float) -> float:
    while time.monotonic() - began < within_s:
        live = await count_live(stage.database)
        if await count_offered(client) >= live:
            return time.monotonic() - began
        await asyncio.sleep(0.02)
    return float("inf")


def _empty(stage: Stage, *, restart: bool) -> None:
    if not restart:
        with redis.Redis.from_url(stage.redis.url) as client:
            client.flushall()
        return
    stage.kill_redis()
    for file in (stage.directory / "redis").rglob("*.aof*"):
        file.unlink()
    stage.redis.start()


async def redis_out(directory: Path, *, out_s: float = 30.0, lease_s: float = 9.0) -> list[Figure]:
    """Take Redis away for a while: submits are accepted, workers stay up, running jobs live on, all is run."""
    async with open_stage(directory, apis=1, workers=2, lease_s=lease_s) as stage:
        pids = await _start_all(stage)
        await submit_many(stage, 20, wait_s=out_s / 2)
        asks = await _submit_through(stage, out_s, stage.kill_redis, stage.redis.start)
        drained_s = await stage.drained(60)
        history = await stage.history()
        alive = [member.pid for member in _members(stage) if member.exit_code is None]
    refused = [ask for ask in asks if ask.status != 202]
    return [
        Figure(name=f"Redis out {out_s:g} s: submits", value=len(asks), unit="submits"),
        Figure(name=f"Redis out {out_s:g} s: submits not accepted", value=len(refused), unit="submits", target=0),
        Figure(
            name=f"Redis out {out_s:g} s: processes that ended",
            value=len(pids - set(alive)),
            unit="processes",
            target=0,
        ),
        Figure(name=f"Redis out {out_s:g} s: all done after it is back", value=drained_s, unit="s", target=60),
        Figure(name=f"Redis out {out_s:g} s: broken promises", value=len(check(history)), unit="faults", target=0),
    ]


async def sql_out(directory: Path, *, database_url: str, out_s: float = 30.0, lease_s: float = 9.0) -> list[Figure]:
    """Take PostgreSQL away for a while: submits are refused with 503, nobody exits, all goes on after it."""
    host, _, rest = database_url.rpartition("@")[2].partition(":")
    port = int(rest.partition("/")[0])
    async with open_proxy(port, host) as proxy:
        through = database_url.replace(f":{port}/", f":{proxy.port}/")
        async with open_stage(
            directory, apis=1, workers=2, lease_s=lease_s, database_url=database_url, member_database_url=through
        ) as stage:
            pids = await _start_all(stage)
            await submit_many(stage, 20, wait_s=out_s / 3)
            asks = await _submit_through(
                stage, out_s, lambda: proxy.become(Mood.REFUSE), lambda: proxy.become(Mood.FAIR)
            )
            back_at = time.time()
            late = await _submit_until_accepted(stage)
            drained_s = await stage.drained(60)
            history = await stage.history()
            alive = [member.pid for member in _members(stage) if member.exit_code is None]
    during = [ask for ask in asks if ask.answered_at < back_at]
    odd = [ask for ask in during if ask.status not in (503, 0)]
    silent = [ask for ask in during if ask.status == 0]
    return [
        Figure(name=f"SQL out {out_s:g} s: submits", value=len(during), unit="submits"),
        Figure(name=f"SQL out {out_s:g} s: answered with anything but 503", value=len(odd), unit="submits", target=0),
        Figure(name=f"SQL out {out_s:g} s: not answered", value=len(silent), unit="submits", target=0),
        Figure(
            name=f"SQL out {out_s:g} s: processes that ended", value=len(pids - set(alive)), unit="processes", target=0
        ),
        Figure(name=f"SQL out {out_s:g} s: first accept after it is back", value=late - back_at, unit="s", target=5),
        Figure(name=f"SQL out {out_s:g} s: all done after it is back", value=drained_s, unit="s", target=5 + lease_s),
        Figure(name=f"SQL out {out_s:g} s: broken promises", value=len(check(history)), unit="faults", target=0),
    ]


async def power_lost(directory: Path, *, jobs: int, cut: float = 0.5, lease_s: float = 9.0) -> list[Figure]:
    """Kill Redis and cut the tail of its append-only file, as a loss of power does; the rows bring all back."""
    async with open_stage(directory, apis=0, workers=2, lease_s=lease_s) as stage:
        await _start_all(stage)
        await submit_many(stage, jobs, wait_s=0.2)
        await eventually(lambda: stage.ledger.exists() and stage.ledger.read_bytes().count(b"end") > jobs // 10, 30)
        stage.kill_redis()
        (file,) = (stage.directory / "redis").rglob("*.incr.aof")
        with file.open("r+b") as tail:
            tail.truncate(int(file.stat().st_size * (1 - cut)))
        stage.redis.start()
        drained_s = await stage.drained(90)
        faults = check(await stage.history())
    return [
        Figure(
            name=f"power lost, {cut:.0%} of Redis's file gone: all done after", value=drained_s, unit="s", target=60
        ),
        Figure(name="power lost: broken promises", value=len(faults), unit="faults", target=0),
    ]


async def _start_all(stage: Stage) -> set[int]:
    for member in _members(stage):
        member.start()
    await stage.ready()
    return {member.pid for member in _members(stage)}


def _members(stage: Stage) -> list[Member]:
    return [*stage.apis, *stage.workers]


async def _submit_through(
    stage: Stage, out_s: float, take_away: Callable[[], object], give_back: Callable[[], object]
) -> list[Ask]:
    """Submit at an even pace while a store is away; return what was asked meanwhile."""
    ledger = stage.directory / "client-out.ndjson"
    take_away()
    until, number = time.monotonic() + out_s, 0
    async with open_session() as session:
        client = Client(session, stage.urls, ledger)
        while time.monotonic() < until:
            number += 1
            await client.submit(f"out-{number}")
            await asyncio.sleep(_PACE_S)
    give_back()
    return read_clients([ledger])[0]


async def _submit_until_accepted(stage: Stage) -> float:
    async with open_session() as session:
        client = Client(session, stage.urls, stage.directory / "client-back.ndjson")
        for number in range(2000):
            if await client.submit(f"back-{number}") is not None:
                return time.time()
            await asyncio.sleep(_PACE_S)
    return float("inf")
