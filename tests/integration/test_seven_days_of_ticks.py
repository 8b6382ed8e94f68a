"""Seven virtual days of three schedulers on one database: every tick becomes one job, whoever dies meanwhile."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.history.reader import JobFilter
from app.history.switches import Switch, turn_switch
from app.installation import Installation
from app.jobs.schedules import Schedule
from app.queue.ticks import latest_tick, next_tick
from app.settings import Settings
from tests.support.house import open_house
from workers.cron import Ticker, cron_jobs

pytestmark = [pytest.mark.databases("sqlite", "postgresql"), pytest.mark.timeout(120)]

MONDAY = datetime(2026, 3, 23, tzinfo=UTC)  # its Sunday has 23 hours in Paris
END = MONDAY + timedelta(days=7)
SCHEDULES = (
    Schedule(name="hourly", kind="test.note", minute=0),
    Schedule(name="nightly", kind="test.note", hour=2, minute=30, timezone="Europe/Paris"),
    Schedule(name="weekly", kind="test.note", weekday=6, hour=3, minute=0),
)
OFF_FROM, OFF_UNTIL = MONDAY + timedelta(days=2), MONDAY + timedelta(days=2, hours=5)  # the hourly one


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as installation:
        yield installation


class Scheduler:
    """One scheduler, which lives between its deaths; a new one begins as a worker does, by catching up."""

    def __init__(self, house: Installation, luck: random.Random) -> None:
        self._house = house
        self._luck = luck
        self._ticker = Ticker(SCHEDULES, house.catalogue, house.lifecycle)
        self._definitions = cron_jobs(SCHEDULES)
        self._is_dead = False
        self.deaths = 0

    async def look(self, now: datetime, *, may_die: bool) -> None:
        if self._is_dead:
            self._is_dead, self._definitions = False, cron_jobs(SCHEDULES)
            await self._ticker.catch_up(self._house.reader, now)
        if may_die and self._luck.random() < 0.2:  # between two ticks, or before the first
            await self._ticker.run(self._definitions[: self._luck.randint(0, 2)], now)
            self._is_dead, self.deaths = True, self.deaths + 1
        else:
            await self._ticker.run(self._definitions, now)


async def test_in_seven_days_every_tick_becomes_one_job(house: Installation) -> None:
    luck = random.Random(7)
    schedulers = [Scheduler(house, luck) for _ in range(3)]
    now = MONDAY
    while now < END:
        await _switch(house, now)
        spared = luck.choice(schedulers)  # of several missed ticks only the last is made good: one is always there
        await asyncio.gather(*(one.look(now, may_die=one is not spared) for one in schedulers))
        now += timedelta(minutes=30)

    assert await _ticked(house) == _expected()
    assert sum(one.deaths for one in schedulers) > 50


async def test_a_night_without_any_scheduler_is_made_good_once_a_schedule(house: Installation) -> None:
    ticker = Ticker(SCHEDULES, house.catalogue, house.lifecycle)
    for schedule in SCHEDULES:
        await ticker.tick(schedule.name, next_tick(schedule, after=MONDAY))
    morning = MONDAY + timedelta(days=6, hours=8)

    tickers = [Ticker(SCHEDULES, house.catalogue, house.lifecycle) for _ in range(3)]
    await asyncio.gather(*(one.catch_up(house.reader, morning) for one in tickers))

    first = Counter((schedule.name, next_tick(schedule, after=MONDAY)) for schedule in SCHEDULES)
    missed = Counter((one.name, latest_tick(one, after=MONDAY, until=morning)) for one in SCHEDULES)
    assert await _ticked(house) == Counter(set(first) | set(missed))


async def _switch(house: Installation, now: datetime) -> None:
    if now in (OFF_FROM, OFF_UNTIL):
        switch = Switch(name="hourly", is_enabled=now == OFF_UNTIL, changed_at=now, changed_by="admin")
        await turn_switch(house.database, switch)


async def _ticked(house: Installation) -> Counter[tuple[str | None, datetime | None]]:
    rows = await house.reader.page(JobFilter(origin="all"), limit=1000)
    return Counter((job.schedule, job.tick_at) for job in rows.jobs)


def _expected() -> Counter[tuple[str | None, datetime | None]]:
    ticks: Counter[tuple[str | None, datetime | None]] = Counter()
    for schedule in SCHEDULES:
        tick = next_tick(schedule, after=MONDAY - timedelta(seconds=1))
        while tick < END:
            is_off = schedule.name == "hourly" and OFF_FROM <= tick < OFF_UNTIL
            ticks[schedule.name, tick] += not is_off
            tick = next_tick(schedule, after=tick)
    return +ticks
