"""``system.health_check``: each part of the installation is told as it is, and one that is not well is the verdict."""

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.errors import Unavailable
from app.installation import Installation, open_installation
from app.jobs.system import HealthCheckParams, HealthCheckResult
from app.live.workers import beat
from app.settings import Settings
from tests.support.run import context_of
from tests.support.workers import heartbeat
from workers.families.system import health


@pytest.fixture
async def house(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Installation]:
    """An installation on a machine with room, whatever the one that runs the tests has."""
    monkeypatch.setattr(health, "LOW_DISK_PERCENT", 0.0)
    monkeypatch.setattr(health, "HIGH_MEMORY_PERCENT", 100.0)
    async with open_installation(settings) as installation:
        yield installation


async def look(house: Installation) -> HealthCheckResult:
    return await health.health_check(context_of(house), HealthCheckParams())


async def test_with_a_worker_and_both_stores_all_is_well(house: Installation) -> None:
    await beat(house.redis, heartbeat("w1"))
    await beat(house.redis, heartbeat("w2"))

    result = await look(house)

    assert result.healthy
    assert (result.checks.workers.status, result.checks.workers.alive) == ("ok", 2)
    assert result.checks.redis.latency_ms is not None
    assert result.checks.database.latency_ms is not None
    assert 0 < result.checks.disk.percent_free <= 100
    assert 0 < result.checks.memory.percent_used <= 100


async def test_without_a_worker_it_is_not_well(house: Installation) -> None:
    result = await look(house)

    assert not result.healthy
    assert (result.checks.workers.status, result.checks.workers.alive) == ("none", 0)


async def test_a_redis_that_is_out_is_told_with_its_reason(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> bool:
        raise RedisConnectionError("connection refused")

    await beat(house.redis, heartbeat("w1"))
    monkeypatch.setattr(house.redis, "ping", refuse)

    result = await look(house)

    assert not result.healthy
    assert (result.checks.redis.status, result.checks.redis.detail) == ("failed", "connection refused")
    assert result.checks.redis.latency_ms is None
    assert (result.checks.database.status, result.checks.workers.alive) == ("ok", 0)


async def test_a_database_that_is_out_is_told_with_its_reason(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> None:
        raise Unavailable("the database does not answer")

    await beat(house.redis, heartbeat("w1"))
    monkeypatch.setattr(house.database, "ping", refuse)

    result = await look(house)

    assert not result.healthy
    assert (result.checks.database.status, result.checks.database.detail) == ("failed", "the database does not answer")
    assert (result.checks.redis.status, result.checks.workers.alive) == ("ok", 1)


@pytest.mark.parametrize(("limit", "value"), [("LOW_DISK_PERCENT", 100.1), ("HIGH_MEMORY_PERCENT", 0.0)])
async def test_a_disk_that_is_full_or_memory_that_is_used_up_is_not_well(
    house: Installation, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    await beat(house.redis, heartbeat("w1"))
    monkeypatch.setattr(health, limit, value)

    result = await look(house)

    assert not result.healthy
    is_disk = limit == "LOW_DISK_PERCENT"
    assert (result.checks.disk.status, result.checks.memory.status) == (("low", "ok") if is_disk else ("ok", "high"))
