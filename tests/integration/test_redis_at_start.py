"""A process looks at its Redis before it serves: refused, advised, or left alone, but never a crash."""

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from app.embedded import EmbeddedRedis
from app.errors import Misconfigured
from app.installation import Installation, check_stores
from app.settings import Settings
from tests.support.house import open_house


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    """A house with a Redis of its own, whose settings a test may change."""
    with EmbeddedRedis() as redis:
        async with open_house(settings.model_copy(update={"redis_url": redis.url})) as house:
            yield house


async def advice(house: Installation) -> list[str]:
    with capture_logs() as logs:
        await check_stores(house)
    return [str(line["advice"]) for line in logs if line["event"] == "redis_setting_unwise"]


async def test_the_redis_that_we_start_ourselves_needs_no_advice(house: Installation) -> None:
    assert await advice(house) == []


async def test_a_redis_that_would_evict_queues_refuses_the_start(house: Installation) -> None:
    await house.redis.config_set("maxmemory", "100mb")
    await house.redis.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(Misconfigured, match="noeviction"):
        await check_stores(house)


async def test_a_redis_without_aof_is_advised_against(house: Installation) -> None:
    await house.redis.config_set("appendonly", "no")

    (told,) = await advice(house)

    assert "appendonly yes" in told


async def test_a_host_that_forbids_config_and_info_gets_a_note(house: Installation) -> None:
    await house.redis.acl_setuser("default", enabled=True, commands=["-config", "-info"])

    (told,) = await advice(house)

    assert "does not tell" in told
    with pytest.raises(ResponseError):
        await house.redis.info()


async def test_a_redis_that_is_out_refuses_nothing(settings: Settings) -> None:
    async with open_house(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})) as house:
        assert await advice(house) == []
