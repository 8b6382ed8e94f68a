"""Crashes at named places: between commit, ring, claim, start, settle and acknowledge."""

import asyncio
import itertools
import random
from pathlib import Path

from tests.chaos.bulk import submit_many
from tests.chaos.checker import check
from tests.chaos.client import Client, open_session
from tests.chaos.figure import Figure, fault_figures
from tests.chaos.stage import Member, Stage, open_stage
from tests.support.waiting import eventually

OF_THE_API = ("accepted", "rung")
OF_A_WORKER = ("claimed", "started", "settling", "settled", "acknowledged")

_START_S = 60.0
_JOBS = 8  # a crash, so that it meets a batch
_WIDTH = 4


async def crashes(directory: Path, *, times: int, seed: int = 1, lease_s: float = 1.0) -> list[Figure]:
    """Crash at every place ``times`` times, at one of its first passes; then let all be done, and check."""
    luck, count, drained_s = random.Random(seed), 0, 0.0
    async with open_stage(directory, apis=1, workers=2, lease_s=lease_s) as stage:
        async with open_session() as session:
            client = Client(session, stage.urls, stage.directory / "client.ndjson")
            for round_, place in itertools.product(range(times), OF_THE_API):
                count += await _crash_api(stage, client, f"{round_}-{place}", _armed(luck, place))
        stage.workers[1].start()
        await eventually(lambda: stage.workers[1].said("worker_started"), within=_START_S)
        for _, place in itertools.product(range(times), OF_A_WORKER):
            drained_s = max(drained_s, await _crash_worker(stage, _armed(luck, place)))
            count += 1
        history = await stage.history()
    failed = [row for row in history.rows if row.status == "failed"]
    return [
        Figure(name=f"crashes at {len(OF_THE_API + OF_A_WORKER)} failpoints", value=count, unit="crashes"),
        *fault_figures("crashes", check(history)),
        Figure(name="crashes: all done after each", value=drained_s, unit="s", target=10),
        Figure(name="crashes: jobs that ended failed", value=len(failed), unit="jobs"),
    ]


def _armed(luck: random.Random, place: str) -> str:
    return f"{place}:{luck.randint(1, _JOBS // 2)}" if place not in ("claimed", "started") else place


async def _crash_api(stage: Stage, client: Client, mark: str, place: str) -> int:
    (api,) = stage.apis
    api.start(FAILPOINT=place)
    await stage.ready_apis()
    for number in range(_JOBS):
        await asyncio.gather(*(client.submit(f"{mark}-{number}-{one}") for one in range(_WIDTH)))
        if api.exit_code is not None:
            break
    return await _died(stage, api)


async def _crash_worker(stage: Stage, place: str) -> float:
    """Crash a worker that has just taken jobs; return how long a sound one, stopped meanwhile, needs for them."""
    doomed, sound = stage.workers
    await stage.drained(60)
    await stage.stop_between_writes(sound)
    await submit_many(stage, _JOBS)
    doomed.start(FAILPOINT=place)
    await _died(stage, doomed)
    stage.strike(sound, "continue")
    return await stage.drained(60)


async def _died(stage: Stage, member: Member) -> int:
    """Wait until the failpoint has killed a process; write that down."""
    await eventually(lambda: member.exit_code is not None, within=_START_S)
    assert member.exit_code == -9, member.log.read_text()[-2000:]
    stage.note_death(member)
    return 1
