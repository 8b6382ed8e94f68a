"""What a worker with nothing to do asks of Redis: few commands, those inside of scripts counted too."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.installation import Installation
from app.live.workers import Heartbeat, alive_workers, beat
from app.queue import keys
from app.settings import Settings
from app.steady import dismiss
from tests.support.house import QUEUES, open_house
from tests.support.waiting import eventually
from tests.support.workers import heartbeat
from workers import pulse, sweep
from workers.lease import LeaseKeeper
from workers.sweep import Sweep
from workers.worker import IDLE_POLL_S, IDLE_SPREAD

MOST = 5.0  # commands a second

pytestmark = pytest.mark.databases("sqlite")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as house:
        yield house


class Counted:
    """How many commands Redis has run since the last look."""

    def __init__(self, house: Installation) -> None:
        self._redis = house.redis
        self._seen = 0

    async def since(self) -> int:
        total: int = (await self._redis.info("stats"))["total_commands_processed"]
        commands, self._seen = total - self._seen, total + 1  # this look counts in the next one
        return commands


async def test_an_idle_worker_asks_redis_at_most_five_commands_a_second(house: Installation) -> None:
    keeper = LeaseKeeper(house.settings.redis_url, 9.0, on_doubt=print, on_aborted=print)
    sweeper, counted = Sweep(house, worker_id="w"), Counted(house)
    each_s: dict[str, float] = {}

    for _ in range(2):  # the first time loads the scripts and takes the lock
        await counted.since()
        await house.queue.claim_at_bell(QUEUES, want=10, token="t", search=True, at_most_s=0.01, name="w")
        each_s["claim"] = await counted.since() / (IDLE_POLL_S * (1 - IDLE_SPREAD / 2))
        keeper._renew([])
        each_s["renewal"] = await counted.since() / keeper.period_s
        await beat(house.redis, heartbeat("w"))
        each_s["heartbeat"] = await counted.since() / pulse.BEAT_S
        mark, _ = await sweeper._read_epoch()
        await sweeper._has_turn()
        with_run = await counted.since()
        await sweeper._read_epoch(mark.server_run_id)
        await sweeper._has_turn()
        each_s["look"] = (with_run + await counted.since()) / (2 * sweep._LOOK_S)
        await sweeper.walk()
        each_s["walk"] = await counted.since() / (2 * sweep._LOOK_S)
    keeper._redis.close()  # type: ignore[no-untyped-call]  # as in the lease keeper

    assert sum(each_s.values()) <= MOST, each_s


async def test_a_worker_that_fell_silent_is_forgotten_by_whoever_asks(house: Installation) -> None:
    await beat(house.redis, heartbeat("here"))
    await house.redis.zadd(keys.WORKERS, {"gone": 1})

    assert [worker.id for worker in await alive_workers(house.redis)] == ["here"]
    assert await house.redis.zrange(keys.WORKERS, 0, -1) == [b"here"]


async def test_a_sweeper_that_lost_its_turn_does_not_take_it_back(house: Installation) -> None:
    mine, other = Sweep(house, worker_id="mine"), Sweep(house, worker_id="other")
    assert await mine._has_turn()
    await house.redis.delete(keys.SWEEPER)  # its lock ran out
    assert await other._has_turn()

    turns = [await one._has_turn() for one in (mine, mine, other)]

    assert turns == [False, False, True]


async def test_a_worker_gives_memory_back_once_each_time_its_work_has_ended(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, given_back = [(0, 0), (1, 5), (0, 6), (0, 6), (2, 7), (0, 9), (0, 9)], []
    said = iter(states)
    at_states: list[tuple[int, int]] = []

    def describe(_rss: int, _lag_s: float) -> Heartbeat:
        running, processed = next(said, states[-1])
        at_states.append((running, processed))
        return replace(heartbeat("w"), running=running, processed=processed)

    monkeypatch.setattr(pulse, "BEAT_S", 0.0)
    monkeypatch.setattr(pulse, "give_back_memory", lambda: given_back.append(at_states[-1]))

    beating = asyncio.create_task(pulse.Pulse(house.redis, house.outbox, "w", describe).run())
    await eventually(lambda: len(at_states) > len(states))
    await dismiss([beating])

    assert given_back == [(0, 6), (0, 9)]
