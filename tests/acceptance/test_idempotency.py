"""Many keys, each sent many times at once to two API processes: every key's task exists once."""

import asyncio
from contextlib import ExitStack

import aiohttp
import pytest

from app.processes import free_port
from app.settings import Settings
from tests.support.service import HEADERS, process
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(600)

AT_ONCE = 10


async def test_a_key_sent_ten_times_to_two_processes_makes_one_task(settings: Settings) -> None:
    await send_many(settings, keys=40)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.databases("sqlite", "postgresql")
async def test_a_thousand_keys_sent_ten_times_to_two_processes_make_a_thousand_tasks(settings: Settings) -> None:
    await send_many(settings, keys=1000)


async def send_many(settings: Settings, *, keys: int) -> None:
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        for port in ports:
            stack.enter_context(process(settings.model_copy(update={"port": port}), "app", "serve"))
        patience = aiohttp.ClientTimeout(total=None, sock_read=120)  # most of them wait here for a connection
        async with aiohttp.ClientSession(headers=HEADERS, timeout=patience) as session:
            for port in ports:
                await eventually(lambda port=port: is_ready(session, port), within=90)  # type: ignore[misc]

            answers = await asyncio.gather(
                *(send(session, ports[at % 2], f"key-{number}") for number in range(keys) for at in range(AT_ONCE))
            )

            async with session.get(f"http://127.0.0.1:{ports[0]}/api/tasks/count/all") as answer:
                count = (await answer.json())["count"]
    assert count == keys
    told = {key: {task for other, task in answers if other == key} for key, _ in answers}
    assert all(len(tasks) == 1 for tasks in told.values())


async def send(session: aiohttp.ClientSession, port: int, key: str) -> tuple[str, str]:
    """Send a submit until it is not told to wait; return the key and the task that it was told."""
    url, body = f"http://127.0.0.1:{port}/api/tasks/system/echo", {"parameters": {"payload": key}}
    for _ in range(1000):
        async with session.post(url, json=body, headers={"Idempotency-Key": key}) as answer:
            found = await answer.json()
            if answer.status == 202:
                return key, str(found["task_id"])
            assert (answer.status, found["code"]) == (409, "request_in_flight"), found
        await asyncio.sleep(0.05)  # what the answer says: ask again shortly
    raise AssertionError(f"{key} was never answered")


async def is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False
