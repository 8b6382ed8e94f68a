"""The whole service over HTTP, with real processes that are stopped and killed."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import aiohttp
import psutil
import pytest

from app.embedded import EmbeddedRedis
from app.processes import free_port
from app.settings import Settings
from tests.support.service import HEADERS, Service, kill, process
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)  # a limit, not an expectation: a busy machine starts a process slowly


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Settings with a port that is known beforehand and a lease that a test can wait for."""
    return settings.model_copy(update={"port": free_port(), "lease_s": 2.0, "worker_cron": False})


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def service(quick: Settings, processes: ExitStack) -> AsyncIterator[Service]:
    """An API process, ready."""
    processes.enter_context(process(quick, "app", "serve"))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{quick.port}", headers=HEADERS) as session:
        client = Service(session)
        await eventually(client.is_ready, within=60)
        yield client


async def test_a_task_is_followed_from_submit_to_result(
    service: Service, quick: Settings, processes: ExitStack
) -> None:
    task = await service.submit("system/echo", {"wait_seconds": 0.6, "steps": 4, "payload": {"a": [1]}})
    async with service.session.ws_connect(f"/api/tasks/{task['task_id']}/events") as stream:
        processes.enter_context(process(quick, "workers"))
        async with asyncio.timeout(30):
            told = [json.loads(message.data) async for message in stream if message.type is aiohttp.WSMsgType.TEXT]

    types = [one["type"] for one in told]
    progress = [one["data"]["progress"] for one in told if one["type"] == "task.progress"]
    done = await service.task(task["task_id"])
    assert task["status"] == "pending"
    assert (types[0], types[1], types[-1]) == ("task.snapshot", "task.started", "task.completed")
    assert progress == sorted(progress)
    assert 25 in progress
    assert told[-1]["data"]["result"] == {"waited_seconds": 0.6, "payload": {"a": [1]}, "attempt": 1}
    assert (done["status"], done["state"], done["progress"], done["attempts"]) == ("completed", "SUCCESS", 100, 1)


async def test_a_failing_task_is_retried_and_ends_failed_and_can_be_retried_by_hand(
    service: Service, quick: Settings, processes: ExitStack
) -> None:
    processes.enter_context(process(quick, "workers"))
    task = await service.submit("system/flaky", {"fail_times": 100}, max_retries=1)

    failed = await service.becomes(task["task_id"], "failed")
    async with service.session.post(f"/api/tasks/{task['task_id']}/retry") as answer:
        again = await answer.json()

    assert (failed["attempts"], failed["failures"], failed["retry_count"]) == (2, 2, 1)
    assert "RuntimeError: Attempt 2 fails on purpose" in failed["error_traceback"]
    assert again["task_id"] != task["task_id"]
    assert again["retried_from"] == task["task_id"]


async def test_a_waiting_and_a_running_task_can_be_cancelled(
    service: Service, quick: Settings, processes: ExitStack
) -> None:
    waiting = await service.submit("system/echo", {}, countdown=3600)
    running = await service.submit("system/echo", {"wait_seconds": 600, "steps": 600})
    processes.enter_context(process(quick, "workers"))
    await service.becomes(running["task_id"], "running")

    for task_id in (waiting["task_id"], running["task_id"]):
        async with service.session.post(f"/api/tasks/{task_id}/cancel") as answer:
            assert (answer.status, (await answer.json())["message"]) == (200, "Task cancelled successfully")

    await eventually(lambda: _is_idle(service))
    assert {(await service.task(task["task_id"]))["status"] for task in (waiting, running)} == {"cancelled"}


async def _is_idle(service: Service) -> bool:
    async with service.session.get("/api/tasks/queues/stats") as answer:
        return all(queue["running"] + queue["scheduled"] == 0 for queue in (await answer.json())["queues"])


async def test_a_task_whose_worker_is_killed_runs_again_and_completes(
    service: Service, quick: Settings, processes: ExitStack
) -> None:
    task = await service.submit("system/echo", {"wait_seconds": 2, "steps": 20, "payload": "still here"})
    doomed = processes.enter_context(process(quick, "workers"))
    await service.becomes(task["task_id"], "running")
    kill(doomed)
    processes.enter_context(process(quick, "workers"))

    done = await service.becomes(task["task_id"], "completed", within=60)

    assert (done["attempts"], done["interruptions"], done["failures"]) == (2, 1, 0)
    assert done["result"]["payload"] == "still here"


async def test_a_task_of_an_api_killed_between_commit_and_ring_still_runs(
    quick: Settings, processes: ExitStack
) -> None:
    doomed = processes.enter_context(process(quick, "app", "serve", FAILPOINT="accepted"))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{quick.port}", headers=HEADERS) as session:
        await eventually(Service(session).is_ready, within=60)
        with pytest.raises(aiohttp.ClientError):
            await Service(session).submit("system/echo", {"payload": "orphan"})
    assert doomed.wait(10) == -signal.SIGKILL
    processes.enter_context(process(quick, "app", "serve"))
    processes.enter_context(process(quick, "workers"))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{quick.port}", headers=HEADERS) as session:
        service = Service(session)
        await eventually(service.is_ready, within=60)

        async def only_task() -> dict[str, Any] | None:
            async with session.get("/api/tasks/list?status=completed") as answer:
                tasks = (await answer.json())["tasks"]
            return tasks[0] if tasks else None

        done = await eventually(only_task, within=60)

    assert (done["task_name"], done["result"]["payload"]) == ("system.echo", "orphan")


async def test_sigterm_lets_a_running_task_finish(service: Service, quick: Settings, processes: ExitStack) -> None:
    worker = processes.enter_context(process(quick, "workers"))
    task = await service.submit("system/echo", {"wait_seconds": 1.5, "steps": 15})
    await service.becomes(task["task_id"], "running")

    worker.send_signal(signal.SIGTERM)

    assert await asyncio.to_thread(worker.wait, 20) == 0
    done = await service.task(task["task_id"])
    assert (done["status"], done["attempts"]) == ("completed", 1)


async def test_a_second_sigterm_leaves_at_once(service: Service, quick: Settings, processes: ExitStack) -> None:
    worker = processes.enter_context(process(quick, "workers"))
    task = await service.submit("system/echo", {"wait_seconds": 600, "steps": 600})
    await service.becomes(task["task_id"], "running")

    worker.send_signal(signal.SIGTERM)
    await eventually(lambda: _is_stopping(quick))
    worker.send_signal(signal.SIGTERM)

    assert await asyncio.to_thread(worker.wait, 5) == 128 + signal.SIGTERM


def _is_stopping(settings: Settings) -> bool:
    return any("worker_stopping" in log.read_text() for log in settings.data_dir.glob("workers-*.log"))


async def test_the_service_takes_submits_while_redis_is_out_and_runs_them_afterwards(
    quick: Settings, processes: ExitStack
) -> None:
    redis = processes.enter_context(EmbeddedRedis())
    alone = quick.model_copy(update={"redis_url": redis.url})
    processes.enter_context(process(alone, "app", "serve"))
    worker = processes.enter_context(process(alone, "workers"))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{alone.port}", headers=HEADERS) as session:
        service = Service(session)
        await eventually(service.is_ready, within=60)
        before = await service.submit("system/echo", {"payload": "before"})
        await service.becomes(before["task_id"], "completed")

        redis.kill()
        during = [await service.submit("system/echo", {"payload": number}) for number in range(5)]
        redis.start()
        done = [await service.becomes(task["task_id"], "completed", within=60) for task in during]

    assert [task["result"]["payload"] for task in done] == list(range(5))
    assert worker.poll() is None


@pytest.fixture
async def pool(service: Service, quick: Settings, processes: ExitStack) -> subprocess.Popen[bytes]:
    """Two workers under a parent, both at work."""
    parent = processes.enter_context(process(quick, "workers", "--processes", "2", "--slots", "3"))
    await eventually(lambda: _both(service), within=60)
    return parent


async def _both(service: Service) -> list[dict[str, Any]] | None:
    async with service.session.get("/api/tasks/workers/status") as answer:
        workers: list[dict[str, Any]] = (await answer.json())["workers"]
    return workers if len(workers) == 2 else None


async def test_several_processes_share_the_queues_and_stop_together(
    service: Service, pool: subprocess.Popen[bytes]
) -> None:
    workers = await _both(service) or []
    tasks = [await service.submit("system/echo", {"wait_seconds": 0.2, "steps": 1}) for _ in range(12)]
    for task in tasks:
        await service.becomes(task["task_id"], "completed")
    pool.send_signal(signal.SIGTERM)

    assert [worker["slots"] for worker in workers] == [3, 3]
    assert await asyncio.to_thread(pool.wait, 20) == 0


async def test_a_stop_that_reaches_a_pool_and_its_processes_lets_a_running_task_finish(
    service: Service, pool: subprocess.Popen[bytes]
) -> None:
    task = await service.submit("system/echo", {"wait_seconds": 2, "steps": 20})
    await service.becomes(task["task_id"], "running")

    for child in [*psutil.Process(pool.pid).children(), pool]:
        child.send_signal(signal.SIGTERM)

    assert await asyncio.to_thread(pool.wait, 20) == 0
    done = await service.task(task["task_id"])
    assert (done["status"], done["attempts"]) == ("completed", 1)


async def test_a_second_signal_to_a_pool_has_its_processes_leave_at_once(
    service: Service, quick: Settings, pool: subprocess.Popen[bytes]
) -> None:
    task = await service.submit("system/echo", {"wait_seconds": 600, "steps": 600})
    await service.becomes(task["task_id"], "running")

    pool.send_signal(signal.SIGTERM)
    await eventually(lambda: _is_stopping(quick))
    pool.send_signal(signal.SIGINT)

    assert await asyncio.to_thread(pool.wait, 5) == 0
