"""Bad links: between the processes and Redis and PostgreSQL, cut, refused, stalled one way, slow, reset."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.chaos.checker import check
from tests.chaos.client import Client, open_session
from tests.chaos.figure import Figure, fault_figures
from tests.chaos.history import read_runs
from tests.chaos.proxy import Mood, Proxy, open_proxy
from tests.chaos.stage import Stage, open_stage

_PACE_S = 0.05
_HEAL_S = 30.0
_HARMS = (None, Mood.REFUSE, Mood.DEAF, Mood.MUTE, Mood.SLOW, Mood.RESET)  # None is a cut


async def links(
    directory: Path,
    *,
    times: int,
    seed: int = 1,
    harm_s: float = 2.0,
    lease_s: float = 9.0,
    database_url: str = "",
    report: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Harm a link ``times`` times under load; measure how soon after each a new job is run."""
    luck, healed, harms = random.Random(seed), list[float](), Counter[str]()
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(open_proxy(0))  # aimed once the server's port is known
        proxies, through = [redis], None
        if database_url:
            port = int(database_url.rpartition("@")[2].partition(":")[2].partition("/")[0])
            sql = await stack.enter_async_context(open_proxy(port))
            proxies, through = [redis, sql], database_url.replace(f":{port}/", f":{sql.port}/")
        stage = await stack.enter_async_context(
            open_stage(
                directory,
                apis=1,
                workers=2,
                lease_s=lease_s,
                report=report,
                database_url=database_url,
                member_database_url=through,
                redis_url=f"redis://127.0.0.1:{redis.port}/0",
            )
        )
        redis.aim_at(int(stage.redis.url.rpartition(":")[2].partition("/")[0]))
        for member in (*stage.apis, *stage.workers):
            member.start()
        await stage.ready()
        session = await stack.enter_async_context(open_session())
        client = Client(session, stage.urls, stage.directory / "client.ndjson")
        order = list(itertools.islice(itertools.cycle(itertools.product(proxies, _HARMS)), times))
        luck.shuffle(order)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_submit_until(over, client))
            for number, (proxy, mood) in enumerate(order):
                harms[mood.name if mood else "CUT"] += 1
                await _harm(proxy, mood, luck.uniform(0.2, 1) * harm_s)
                healed.append(await _probe(stage, client, f"probe-{number}"))
                stage.report(f"{number + 1:3} of {times}: {mood}, healed after {healed[-1]:.2f} s")
            over.set()
        drained_s = await stage.drained(60)
        history = await stage.history()
    faults = [fault for fault in check(history) if fault.rule != "overtaken"]  # a bad link is no strike, and excuses it
    where = "links of Redis and PostgreSQL" if database_url else "links of Redis"
    return [
        Figure(name=f"{where} harmed ({', '.join(sorted(harms))})", value=len(healed), unit="times"),
        *fault_figures("links", faults),
        Figure(name="links: healed within", value=max(healed), unit="s", target=10),
        Figure(name="links: all done after the last", value=drained_s, unit="s", target=60),
    ]


async def _harm(proxy: Proxy, mood: Mood | None, for_s: float) -> None:
    if mood is None:
        proxy.cut()
        return
    proxy.become(mood)
    await asyncio.sleep(for_s)
    proxy.become(Mood.FAIR)


async def _probe(stage: Stage, client: Client, mark: str) -> float:
    """Return how long it takes until a job that is submitted now has been run."""
    began, job_id, number = time.monotonic(), None, 0
    while time.monotonic() - began < _HEAL_S:
        if job_id is None:
            job_id = await client.submit(f"{mark}-{number}", priority=10)
            number += 1
        elif any(run.job_id == job_id for run in read_runs(stage.ledger)):
            return time.monotonic() - began
        await asyncio.sleep(0.01)
    return float("inf")


async def _submit_until(over: asyncio.Event, client: Client) -> None:
    number = 0
    while not over.is_set():
        number += 1
        await client.submit(f"load-{number}", wait_s=0.1)
        await asyncio.sleep(_PACE_S)
