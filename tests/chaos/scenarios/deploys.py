"""Rolling deploys: every process is asked to stop and started again, one after the other, under load."""

import asyncio
from collections import Counter
from pathlib import Path

from tests.chaos.checker import check
from tests.chaos.client import Client, open_session
from tests.chaos.figure import Figure
from tests.chaos.stage import Member, Stage, open_stage
from tests.support.waiting import eventually

_START_S = 60.0
_STOP_S = 60.0
_WIDTH = 4
_PACE_S = 0.02


async def deploys(directory: Path, *, rounds: int, grace_s: float = 1.0) -> list[Figure]:
    """Deploy ``rounds`` times while clients submit jobs, some of which outlast the grace period."""
    async with open_stage(directory, apis=2, workers=2, worker_grace_s=grace_s) as stage:
        for member in (*stage.apis, *stage.workers):
            member.start()
        await stage.ready()
        over = asyncio.Event()
        async with open_session() as session:
            client = Client(session, stage.urls, stage.directory / "client.ndjson")
            async with asyncio.TaskGroup() as group:
                for one in range(_WIDTH):
                    group.create_task(_submit_until(over, client, one, grace_s))
                for _ in range(rounds):
                    await _deploy(stage)
                over.set()
        await stage.drained(60)
        history = await stage.history()
    answers = Counter(ask.status for ask in history.asks)
    errors = sum(count for status, count in answers.items() if status != 202)
    burnt = sum(noted.outcome in {"interrupted", "failed"} for noted in history.noted)
    released = sum(noted.outcome == "released" for noted in history.noted)
    return [
        Figure(name=f"rolling deploys ×{rounds}: submits", value=len(history.asks), unit="submits"),
        Figure(name="rolling deploys: client errors", value=errors, unit="errors", target=0),
        Figure(name="rolling deploys: attempts burnt", value=burnt, unit="attempts", target=0),
        Figure(name="rolling deploys: attempts given back unburnt", value=released, unit="attempts"),
        Figure(name="rolling deploys: broken promises", value=len(check(history)), unit="faults", target=0),
    ]


async def _deploy(stage: Stage) -> None:
    for member in stage.apis:
        await _replace(stage, member, "api_started")
    for member in stage.workers:
        await _replace(stage, member, "worker_started")


async def _replace(stage: Stage, member: Member, event: str) -> None:
    before = member.said(event)
    stage.strike(member, "terminate")
    await eventually(lambda: member.exit_code is not None, within=_STOP_S)
    member.start()
    await eventually(lambda: member.said(event) > before, within=_START_S)


async def _submit_until(over: asyncio.Event, client: Client, one: int, grace_s: float) -> None:
    number = 0
    while not over.is_set():
        number += 1
        wait_s = 3 * grace_s if number % 20 == 0 else 0.01
        await client.submit(f"deploy-{one}-{number}", wait_s=wait_s)
        await asyncio.sleep(_PACE_S)
