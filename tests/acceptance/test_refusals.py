"""A process that cannot work here says why in one line, and ends; a parent of several does not try again for ever."""

import asyncio
from pathlib import Path

import pytest

from app.clock import new_id
from app.queue import keys
from app.queue.connect import open_redis
from app.settings import Settings
from tests.support.service import process

pytestmark = pytest.mark.timeout(120)

COMMANDS = {"one": ("workers",), "several": ("workers", "--processes", "2"), "the API": ("app", "serve")}


def said_in(directory: Path) -> str:
    (log,) = directory.glob("*.log")
    return log.read_text()


async def refusal(settings: Settings, command: str, **environment: str) -> list[str]:
    """Start a process that must end by itself with exit code 2; return the lines that are no log."""
    with process(settings, *COMMANDS[command], **environment) as child:
        assert await asyncio.to_thread(child.wait, 20) == 2
    lines = said_in(settings.data_dir).splitlines()
    return [line for line in lines if not line.startswith("{")]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_redis_of_another_installation_is_refused_in_a_line(settings: Settings, command: str) -> None:
    redis = open_redis(settings.redis_url)
    await redis.hset(keys.EPOCH, mapping={"installation": new_id(), "counter": 1})  # type: ignore[misc]  # redis-py's
    await redis.aclose(close_connection_pool=True)

    said = await refusal(settings, command)

    assert {line[:7] for line in said} == {"error: "}
    assert all("belongs to another installation" in line for line in said)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("name", "value"), [("REDIS_URL", "http://x"), ("DATABASE_URL", "nonsense")])
async def test_an_address_of_no_store_is_refused_in_a_line(
    settings: Settings, command: str, name: str, value: str
) -> None:
    said = await refusal(settings, command, **{name: value})

    assert said
    assert all(line.startswith(f"error: {name}") for line in said)
