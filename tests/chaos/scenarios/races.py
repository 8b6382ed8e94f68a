"""Cancel against completion: one of them wins, and both callers are told the truth."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.checker import check
from tests.chaos.client import Client, open_session
from tests.chaos.figure import Figure
from tests.chaos.stage import open_stage

_WIDTH = 16
_LATEST_S = 0.03
_STEP = 1.03  # by how much the next jobs last longer, or shorter
_BITE = 0.1  # of the races, at least, for either side


class Pace:
    """How long jobs wait: longer while completions win, shorter while cancels do, so that both come close."""

    def __init__(self) -> None:
        self.wait_s = _LATEST_S

    def learn(self, *, cancel_won: bool) -> None:
        """Even the chances."""
        self.wait_s = self.wait_s / _STEP if cancel_won else self.wait_s * _STEP


async def races(directory: Path, *, count: int, seed: int = 1, database_url: str = "") -> list[Figure]:
    """Submit ``count`` jobs, and cancel each about when it completes."""
    async with open_stage(directory, apis=1, workers=1, database_url=database_url) as stage:
        for member in (*stage.apis, *stage.workers):
            member.start()
        await stage.ready()
        async with open_session() as session:
            client = Client(session, stage.urls, stage.directory / "client.ndjson")
            numbers, pace = iter(range(count)), Pace()
            await asyncio.gather(*(_race(client, numbers, pace, random.Random(seed + one)) for one in range(_WIDTH)))
        await stage.drained(30)
        history = await stage.history()
    won = [revoke for revoke in history.revokes if revoke.status == 200]
    lost = [revoke for revoke in history.revokes if revoke.status == 409]
    other = len(history.revokes) - len(won) - len(lost)
    return [
        Figure(name="races of cancel and completion", value=len(history.revokes), unit="races"),
        Figure(name="races: won by the cancel", value=len(won), unit="races", target=_BITE * count, best="most"),
        Figure(name="races: won by the completion", value=len(lost), unit="races", target=_BITE * count, best="most"),
        Figure(name="races: told neither", value=other, unit="races", target=0),
        Figure(name="races: broken promises", value=len(check(history)), unit="faults", target=0),
    ]


async def _race(client: Client, numbers: Iterator[int], pace: Pace, luck: random.Random) -> None:
    for number in numbers:
        job_id = await client.submit(f"race-{number}", wait_s=pace.wait_s * luck.uniform(0.5, 1.5))
        assert job_id is not None
        await asyncio.sleep(luck.uniform(0, _LATEST_S))
        pace.learn(cancel_won=await client.cancel(job_id) == 200)
