"""Three schedulers over virtual days, killed at random: every tick of every schedule becomes one job."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from app.clock import iso
from app.history.tables import jobs
from app.queue.ticks import next_tick
from tests.chaos.figure import Figure
from tests.chaos.scheduler import TICKING
from tests.chaos.stage import Member, Stage, open_stage
from tests.support.environment import environment_of
from tests.support.waiting import eventually

BEGIN = datetime(2026, 3, 23, tzinfo=UTC)  # the clocks of Europe change within the week
_STEP = timedelta(minutes=5)  # none of the schedules ticks in between
_START_S = 90.0
_LATEST_S = 0.01  # after a moment was told, the kill comes
_COUNT = 3


class VirtualClock:
    """Tells the time to every scheduler that listens, and hears from each when it has done what is due."""

    def __init__(self) -> None:
        self.listeners: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._newcomers: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take in one scheduler, from the next moment on."""
        self._newcomers.append((reader, writer))

    def tell(self, now: datetime) -> None:
        """Say what time it is."""
        self.take_in()
        for _, writer in self.listeners:
            writer.write(f"{iso(now)}\n".encode())

    def take_in(self) -> int:
        """Have the newcomers listen; return how many do."""
        self.listeners += self._newcomers
        self._newcomers = []
        return len(self.listeners)

    async def heard(self) -> int:
        """Wait until all have done what was due, or died; return how many have."""
        done = [one for one in self.listeners if await _line(one[0])]
        for _, writer in [one for one in self.listeners if one not in done]:
            writer.close()
        self.listeners = done
        return len(done)


async def schedulers(
    directory: Path,
    *,
    days: int,
    kills: int,
    seed: int = 1,
    database_url: str = "",
    report: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Let the real schedules tick for some days by a virtual clock, and kill a scheduler ``kills`` times."""
    async with open_stage(directory, apis=0, workers=0, database_url=database_url, report=report) as stage:
        clock, path = VirtualClock(), directory / "clock"
        async with await asyncio.start_unix_server(clock.welcome, path):
            environment = environment_of(stage.settings)
            stage.workers = [
                Member(f"scheduler{number}", ["tests.chaos.scheduler", str(path)], environment, directory)
                for number in range(1, _COUNT + 1)
            ]
            for member in stage.workers:
                member.start()
            await eventually(lambda: clock.take_in() == _COUNT, within=_START_S)
            await _run_days(stage, clock, days=days, kills=kills, luck=random.Random(seed))
            for _, writer in clock.listeners:
                writer.close()
        ticked = await _ticked(stage)
    expected = _expected(BEGIN + timedelta(days=days))
    name = f"three schedulers, {days} virtual days on {stage.database.dialect}"
    return [
        Figure(name=f"{name}: kills", value=len(stage.strikes), unit="kills"),
        Figure(name=f"{name}: ticks", value=sum(ticked.values()), unit="ticks"),
        Figure(name=f"{name}: ticks missed", value=sum((expected - ticked).values()), unit="ticks", target=0),
        Figure(name=f"{name}: ticks too many", value=sum((ticked - expected).values()), unit="ticks", target=0),
    ]


async def _run_days(stage: Stage, clock: VirtualClock, *, days: int, kills: int, luck: random.Random) -> None:
    steps = days * timedelta(days=1) // _STEP
    for step in range(steps):
        clock.tell(BEGIN + step * _STEP)
        is_due = len(stage.strikes) < kills * (step + 1) // steps
        if is_due and len(clock.listeners) > 1:  # one is always there: of several missed ticks, the last is made good
            await asyncio.sleep(luck.uniform(0, _LATEST_S))
            _kill_one(stage, luck)
        assert await clock.heard(), "no scheduler is left"


def _kill_one(stage: Stage, luck: random.Random) -> None:
    victim = luck.choice(stage.workers)
    stage.strike(victim, "kill")
    victim.start()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def _ticked(stage: Stage) -> Counter[tuple[str, datetime]]:
    query = sa.select(jobs.c.schedule, jobs.c.tick_at).where(jobs.c.schedule.is_not(None))
    async with stage.database.read() as connection:
        return Counter((name, at) for name, at in await connection.execute(query))


def _expected(end: datetime) -> Counter[tuple[str, datetime]]:
    ticks: Counter[tuple[str, datetime]] = Counter()
    for schedule in TICKING:
        tick = next_tick(schedule, after=BEGIN - timedelta(seconds=1))
        while tick < end:
            ticks[schedule.name, tick] += 1
            tick = next_tick(schedule, after=tick)
    return ticks
