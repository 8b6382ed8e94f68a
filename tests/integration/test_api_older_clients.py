"""The examples of four older systems' clients, as they stand, given a token. One test per line.

The login comes with the credentials; every path, query string and body here is the example's own.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from app.clock import new_id, utc_now
from app.history.writer import Started
from app.jobs.catalogue import load_catalogue
from app.jobs.status import Status
from app.live.events import Event
from app.live.workers import Heartbeat, beat
from app.settings import Settings
from tests.support import house
from tests.support.api import Answer, ApiUnderTest, running_api
from tests.support.waiting import eventually

TYPED = {"Content-Type": "application/json"}


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    """The service with its own kinds of tasks, and one worker that reports."""
    async with running_api(settings, catalogue=load_catalogue()) as running:
        await beat(running.house.redis, heartbeat())
        yield running


async def curl(api: ApiUnderTest, method: str, path: str, body: str | None = None) -> Answer:
    options: dict[str, Any] = {} if body is None else {"data": body, "headers": TYPED}
    return await api.ask(method, path, **options)


async def echo(api: ApiUnderTest, **options: Any) -> str:
    answer = await api.ask("POST", "/api/tasks/system/echo", json={"parameters": {}} | options)
    assert answer.status == 202, answer.text
    return str(answer.json["task_id"])


async def start(api: ApiUnderTest) -> Started:
    claims = await api.house.queue.claim(["default"], want=1, token=new_id(), search=True)
    (job,) = await api.house.lifecycle.start(claims, worker_id=house.WORKER)
    return job


async def test_aggregate_snapshots_is_submitted_by_its_route(api: ApiUnderTest) -> None:
    body = """{"task_type": "ari_snapshot", "user_id": "user_123", "priority": 7,
               "parameters": {"user_id": "user_123", "time_window_hours": 24}}"""

    answer = await curl(api, "POST", "/api/tasks/ari/aggregate-snapshots", body)

    task = answer.json
    assert (answer.status, task["status"], task["state"], task["priority"]) == (202, "pending", "PENDING", 7)
    assert (task["task_name"], task["user_id"]) == ("ari.aggregate_snapshots", "user_123")


async def test_pending_tasks_are_listed(api: ApiUnderTest) -> None:
    task_id = await echo(api)

    answer = await curl(api, "GET", "/api/tasks/list?status=pending&limit=20")

    assert answer.status == 200
    assert {"tasks", "total_count", "limit", "offset"} <= answer.json.keys()
    assert ([task["task_id"] for task in answer.json["tasks"]], answer.json["limit"]) == ([task_id], 20)


async def test_a_task_is_enqueued_by_its_name(api: ApiUnderTest) -> None:
    body = """{"task_name": "backend.app.tasks.test_task", "task_type": "system",
               "params": {"payload": "hello"}, "priority": 5, "max_retries": 3}"""

    answer = await curl(api, "POST", "/api/tasks/enqueue", body)

    assert answer.status == 201
    assert answer.json["message"] == "Task enqueued successfully with priority 5"
    assert (await house.row(api.house, answer.json["task_id"])).max_retries == 3


async def test_all_tasks_are_counted(api: ApiUnderTest) -> None:
    await echo(api)

    answer = await curl(api, "GET", "/api/tasks/count/all")

    assert answer.status == 200
    assert answer.json.items() >= {"count": 1, "status": None, "task_type": None}.items()


async def test_a_task_is_cancelled_by_post(api: ApiUnderTest) -> None:
    task_id = await echo(api)

    answer = await curl(api, "POST", f"/api/tasks/{task_id}/cancel")

    message = "Task cancelled successfully"
    assert (answer.status, answer.json) == (
        200,
        {"task_id": task_id, "success": True, "status": "cancelled", "message": message},
    )


async def test_a_task_is_read_with_its_progress(api: ApiUnderTest) -> None:
    task_id = await echo(api)
    job = await start(api)
    api.house.outbox.post(progress_of(job))

    async def shown() -> Any:
        answer = await curl(api, "GET", f"/api/v1/tasks/{task_id}")
        return answer.json if answer.json["progress"] else None

    task = await eventually(shown)
    assert (task["status"], task["progress"], task["progress_message"]) == ("running", 42.0, "counting")


async def test_the_workers_are_shown(api: ApiUnderTest) -> None:
    answer = await curl(api, "GET", "/api/v1/tasks/workers/status")

    names = {
        "id", "host", "pid", "queues", "slots", "running",
        "processed", "failed", "rss", "loop_lag", "last_heartbeat",
    }  # fmt: skip
    assert (answer.status, answer.json["total_workers"]) == (200, 1)
    assert names <= answer.json["workers"][0].keys()


async def test_the_queues_are_shown(api: ApiUnderTest) -> None:
    await echo(api)

    answer = await curl(api, "GET", "/api/v1/tasks/queues/stats")

    queues = {queue["name"]: queue for queue in answer.json["queues"]}
    names = {
        "name", "messages", "ready", "scheduled", "running", "paused", "oldest_ready_age_s", "consumers", "rate",
    }  # fmt: skip
    assert (answer.status, answer.json["total_queues"]) == (200, len(queues))
    assert names <= queues["default"].keys()
    assert (queues["default"]["messages"], queues["default"]["ready"], queues["default"]["consumers"]) == (1, 1, 1)


async def test_a_task_is_executed_with_arguments_and_a_countdown(api: ApiUnderTest) -> None:
    body = """{"task_name": "backend.app.tasks.test_task", "args": [0], "kwargs": {"payload": "hello"},
               "queue": "default", "countdown": 10}"""

    answer = await curl(api, "POST", "/api/tasks/execute", body)

    task = answer.json
    assert (answer.status, task["params"]["payload"], task["queue"]) == (202, "hello", "default")
    assert task["scheduled_for"] > task["created_at"]


async def test_a_waiting_task_is_deleted_without_terminating(api: ApiUnderTest) -> None:
    task_id = await echo(api)

    answer = await curl(api, "DELETE", f"/api/tasks/{task_id}?terminate=false")

    assert (answer.status, answer.json["success"]) == (200, True)
    assert (await house.row(api.house, task_id)).status is Status.CANCELLED


async def test_active_tasks_are_listed(api: ApiUnderTest) -> None:
    task_id = await echo(api)
    await start(api)

    answer = await curl(api, "GET", "/api/tasks/active/list")

    (task,) = answer.json
    assert (answer.status, task["task_id"], task["worker"]) == (200, task_id, house.WORKER)
    assert {"worker", "task_id", "task_name", "args", "kwargs", "time_start"} <= task.keys()


async def test_scheduled_tasks_are_listed(api: ApiUnderTest) -> None:
    task_id = await echo(api, countdown=60)

    answer = await curl(api, "GET", "/api/tasks/scheduled/list")

    assert (answer.status, [task["task_id"] for task in answer.json]) == (200, [task_id])


async def test_the_workers_figures_are_shown(api: ApiUnderTest) -> None:
    answer = await curl(api, "GET", "/api/tasks/workers/stats")

    stats = {"pool": {"implementation": "asyncio", "max-concurrency": 4}, "total": {"tasks": 3}}
    assert (answer.status, answer.json) == (200, {"workers": {"here:1:abc": stats}, "total_workers": 1})


async def test_registered_tasks_are_listed(api: ApiUnderTest) -> None:
    answer = await curl(api, "GET", "/api/tasks/registered/list")

    kinds = [job_type.kind for job_type in api.house.catalogue]
    assert (answer.status, list(answer.json["tasks"]), answer.json["total"]) == (200, kinds, len(kinds))


async def test_a_queue_is_purged(api: ApiUnderTest) -> None:
    task_id = await echo(api)

    answer = await curl(api, "POST", "/api/tasks/purge/queue?queue_name=default&confirm=true")

    assert (answer.status, answer.json["success"], answer.json["count"]) == (200, True, 1)
    assert (await house.row(api.house, task_id)).status is Status.CANCELLED


async def test_the_document_has_an_example_for_what_older_clients_send(api: ApiUnderTest) -> None:
    document = orjson.loads((await curl(api, "GET", "/api/openapi.json")).text)

    for name in ("Enqueue", "Execute", "Batch", "BulkRequest", "TaskChange"):
        (example, *_) = document["components"]["schemas"][name]["examples"]
        assert example


def heartbeat() -> Heartbeat:
    now = utc_now()
    return Heartbeat(
        id="here:1:abc",
        host="here",
        pid=1,
        queues=["default"],
        slots=4,
        running=0,
        processed=3,
        failed=1,
        rss=1,
        loop_lag=0.0,
        started_at=now,
        last_heartbeat=now,
    )


def progress_of(job: Started) -> Event:
    return Event(
        type="task.progress",
        job_id=job.id,
        kind=job.kind,
        queue=job.queue,
        owner=job.submitted_by,
        user_id=job.user_id,
        status=Status.RUNNING,
        attempt=job.attempts,
        progress=42.0,
        message="counting",
    )
