"""Tasks over HTTP: submit, read, act."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.clock import iso, utc_now
from app.jobs.status import Status
from app.live.events import Event
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


# --- submit ------------------------------------------------------------------------------------


async def test_a_submit_is_accepted_stored_and_rung(api: ApiUnderTest) -> None:
    answer = await api.ask("POST", "/api/tasks/test/note", json={"parameters": {"text": "hello"}, "priority": 7})

    task = answer.json
    assert (answer.status, answer.headers["Location"]) == (202, f"/api/tasks/{task['task_id']}")
    assert (task["status"], task["priority"], task["params"]) == ("pending", 7, {"text": "hello", "user_id": None})
    assert (await house.row(api.house, task["task_id"])).priority == 7
    (claim,) = (await house.claim(api.house)).claims
    assert claim.id == task["task_id"]


@pytest.mark.parametrize("name", ["test.note", "note"])
async def test_a_task_is_enqueued_by_its_kind_or_an_alias(api: ApiUnderTest, name: str) -> None:
    answer = await api.ask("POST", "/api/tasks/enqueue", json={"task_name": name, "params": {"text": "hello"}})

    assert answer.status == 201
    assert answer.json["message"] == "Task enqueued successfully with priority 5"
    assert (await house.row(api.house, answer.json["task_id"])).kind == "test.note"


async def test_a_priority_above_the_kinds_own_limit_is_lowered(api: ApiUnderTest) -> None:
    body = {"task_name": "test.count", "params": {}, "priority": 10}

    answer = await api.ask("POST", "/api/tasks/enqueue", json=body)

    assert answer.json["priority"] == 9
    assert answer.json["message"].startswith("Task enqueued successfully with priority 9 (lowered from 10")


async def test_what_a_submit_answers_is_what_the_task_reads(api: ApiUnderTest) -> None:
    accepted = await api.submit(key=ADA_KEY, countdown=3600, max_retries=1, expires_in=60)

    task = (await api.ask("GET", accepted["links"]["self"], key=ADA_KEY)).json

    assert accepted.pop("message")
    assert task == accepted


@pytest.mark.parametrize("prefix", ["/api", "/api/v1"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_every_spelling_of_a_path_is_the_same_route(api: ApiUnderTest, prefix: str, slash: str) -> None:
    answer = await api.ask("POST", f"{prefix}/tasks/test/note{slash}", json={"parameters": {}})
    read = await api.ask("GET", f"{prefix}/tasks/status/{answer.json['task_id']}{slash}")

    assert (answer.status, read.status) == (202, 200)


# --- read --------------------------------------------------------------------------------------


async def test_a_running_task_shows_the_progress_that_redis_has(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    api.house.outbox.post(progress_of(job.id, 42.0))

    async def shown() -> Any:
        task = (await api.ask("GET", f"/api/tasks/{job.id}")).json
        return task if task["progress"] else None

    task = await eventually(shown)
    assert (task["status"], task["state"], task["progress"]) == ("running", "PROGRESS", 42.0)


async def test_the_result_and_the_attempts_can_be_read_alone(api: ApiUnderTest) -> None:
    first = await house.start_one(api.house)
    await house.settle(api.house, first, Status.PENDING, due_at=utc_now() - timedelta(seconds=1))
    (second,) = await house.start(api.house)
    await house.settle(api.house, second)

    result = (await api.ask("GET", f"/api/tasks/{first.id}/result")).json
    attempts = (await api.ask("GET", f"/api/tasks/{first.id}/attempts")).json

    assert (result["status"], result["successful"], result["result"]) == ("completed", True, {"text": "done"})
    assert [one["outcome"] for one in attempts["attempts"]] == ["failed", "completed"]
    assert attempts["attempts"][0]["error"]["message"] == "oops"
    assert attempts["attempts"][0]["error_traceback"] == "Traceback: oops"


async def test_a_traceback_stays_with_the_administrator(api: ApiUnderTest) -> None:
    await api.submit(key=ADA_KEY)
    (job,) = await house.start(api.house)
    await house.settle(api.house, job, Status.FAILED)

    path = f"/api/tasks/{job.id}"

    assert (await api.ask("GET", path)).json["error_traceback"] == "Traceback: oops"
    assert (await api.ask("GET", path, key=ADA_KEY)).json["error_traceback"] is None
    attempts = (await api.ask("GET", f"{path}/attempts", key=ADA_KEY)).json["attempts"]
    assert [one["error_traceback"] for one in attempts] == [None]


async def test_filters_combine(api: ApiUnderTest) -> None:
    for priority in (3, 3, 8):
        await api.submit(priority=priority)
    await api.ask("POST", "/api/tasks/test/count", json={"parameters": {}, "priority": 3})

    found = await api.ask("GET", "/api/tasks?task_name=note&priority=3&status=PENDING&queue=alpha&family=test&limit=1")

    assert (found.json["total_count"], len(found.json["tasks"]), found.json["limit"]) == (2, 1, 1)


async def test_pending_retry_and_failed_tasks_are_told_apart(api: ApiUnderTest) -> None:
    fresh = await api.submit(priority=1)
    retried, failed = await api.submit(), await api.submit()
    for job in await house.start(api.house, want=2):
        await house.settle(api.house, job, Status.PENDING if job.id == retried["task_id"] else Status.FAILED)

    async def ids(path: str) -> list[str]:
        return [task["task_id"] for task in (await api.ask("GET", path)).json["tasks"]]

    assert await ids("/api/tasks?status=RETRY") == [retried["task_id"]]
    assert await ids("/api/tasks?status=PENDING") == [fresh["task_id"]]
    assert await ids("/api/tasks/pending") == [retried["task_id"], fresh["task_id"]]
    assert await ids("/api/tasks/failed") == [failed["task_id"]]
    assert await ids("/api/tasks?status=FAILURE&status=completed") == [failed["task_id"]]


async def test_a_time_window_is_half_open(api: ApiUnderTest) -> None:
    task = await api.submit()
    at = task["created_at"]
    later = iso(utc_now() + timedelta(days=1))

    counts = [
        (await api.ask("GET", "/api/tasks/count/all", params=window)).json["count"]
        for window in ({"created_after": at}, {"created_before": at}, {"created_after": later})
    ]

    assert counts == [1, 0, 0]


async def test_the_pages_of_a_list_cover_it_once_each_in_order(api: ApiUnderTest) -> None:
    submitted = [(await api.submit(priority=1 + number % 3))["task_id"] for number in range(7)]

    newest_first = await walk(api, "/api/tasks?limit=3")
    by_priority = await walk(api, "/api/tasks?limit=3&sort=-priority")

    assert newest_first == submitted[::-1]
    assert sorted(by_priority) == sorted(submitted)


async def test_an_offset_leaves_out_the_first(api: ApiUnderTest) -> None:
    submitted = [(await api.submit())["task_id"] for _ in range(3)]

    page = (await api.ask("GET", "/api/tasks/list?offset=2")).json

    assert [task["task_id"] for task in page["tasks"]] == submitted[:1]
    assert (page["total_count"], page["limit"], page["offset"]) == (3, 20, 2)


async def test_lists_and_counts_are_the_callers_own(api: ApiUnderTest) -> None:
    await api.submit(key=ADA_KEY)
    await api.submit(key=BOB_KEY)

    counts = [(await api.ask("GET", "/api/tasks/count/all", key=key)).json["count"] for key in (ADA_KEY, BOB_KEY)]

    assert counts == [1, 1]
    assert (await api.ask("GET", "/api/tasks")).json["total_count"] == 2


async def test_what_cron_submitted_is_listed_when_asked_for(api: ApiUnderTest) -> None:
    await api.submit()
    await api.house.lifecycle.submit_tick(house.order(schedule="hourly", tick_at=house.whole_ms(utc_now())))

    async def count(query: str) -> int:
        found: int = (await api.ask("GET", f"/api/tasks/count/all{query}")).json["count"]
        return found

    assert (await count(""), await count("?scheduled_by=cron"), await count("?include=all")) == (1, 1, 2)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/attempts"),
        ("GET", "/result"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("PATCH", ""),
    ],
)
async def test_a_foreign_task_is_not_found(api: ApiUnderTest, method: str, path: str) -> None:
    task = await api.submit(key=ADA_KEY)

    answer = await api.ask(method, f"/api/tasks/{task['task_id']}{path}", key=BOB_KEY, json={"priority": 1})

    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert (await house.row(api.house, task["task_id"])).status is Status.PENDING


# --- act ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/cancel")])
async def test_a_waiting_task_is_cancelled_and_never_claimed(api: ApiUnderTest, method: str, path: str) -> None:
    task = await api.submit()

    answer = await api.ask(method, f"/api/tasks/{task['task_id']}{path}?terminate=false")

    expected = {"success": True, "status": "cancelled", "message": "Task cancelled successfully"}
    assert (answer.status, answer.json) == (200, {"task_id": task["task_id"], **expected})
    assert not (await house.claim(api.house)).claims


async def test_a_running_task_is_stopped_unless_told_otherwise(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)

    spared = await api.ask("DELETE", f"/api/tasks/{job.id}?terminate=false")
    stopped = await api.ask("DELETE", f"/api/tasks/{job.id}")
    again = await api.ask("DELETE", f"/api/tasks/{job.id}")

    assert (spared.status, stopped.status, again.status) == (409, 200, 409)
    assert not await house.settle(api.house, job)


async def test_a_failed_task_is_retried_as_a_new_one(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)
    await house.settle(api.house, job, Status.FAILED)

    answer = await api.ask("POST", f"/api/tasks/{job.id}/retry")

    assert (answer.status, answer.json["retried_from"], answer.json["attempts"]) == (202, job.id, 0)
    assert answer.json["task_id"] != job.id


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.COMPLETED])
async def test_only_what_failed_or_was_cancelled_can_be_retried(api: ApiUnderTest, status: Status) -> None:
    task = await api.submit()
    if status is not Status.PENDING:
        (job,) = await house.start(api.house)
        if status.is_final:
            await house.settle(api.house, job)

    answer = await api.ask("POST", f"/api/tasks/{task['task_id']}/retry")

    assert (answer.status, answer.json["code"]) == (409, "conflict")


async def test_a_waiting_task_gets_another_priority_within_its_kinds_limit(api: ApiUnderTest) -> None:
    task = (await api.ask("POST", "/api/tasks/test/count", json={"parameters": {}})).json

    answer = await api.ask("PATCH", f"/api/tasks/{task['task_id']}", json={"priority": 10})

    assert (answer.status, answer.json["priority"]) == (200, 9)
    assert answer.json["message"] == "Task priority set to 9 (lowered from 10)"
    assert await house.entry(api.house.redis, await house.row(api.house, task["task_id"])) is not None


async def test_a_running_task_keeps_its_priority(api: ApiUnderTest) -> None:
    job = await house.start_one(api.house)

    answer = await api.ask("PATCH", f"/api/tasks/{job.id}", json={"priority": 10})

    assert answer.status == 409


# --- Redis is out ------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
async def test_tasks_are_accepted_and_read_while_redis_is_out(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with running_api(nowhere) as api:
        task = await api.submit()

        read = await api.ask("GET", f"/api/tasks/{task['task_id']}")
        cancelled = await api.ask("DELETE", f"/api/tasks/{task['task_id']}")

    assert (read.status, read.json["status"], cancelled.status) == (200, "pending", 200)


async def walk(api: ApiUnderTest, path: str) -> list[str]:
    """Follow the cursors of a list from its first page to its last."""
    page = (await api.ask("GET", path)).json
    ids = [task["task_id"] for task in page["tasks"]]
    while page["next_cursor"]:
        page = (await api.ask("GET", f"{path}&cursor={page['next_cursor']}")).json
        ids += [task["task_id"] for task in page["tasks"]]
    return ids


def progress_of(job_id: str, percent: float) -> Event:
    return Event(
        type="task.progress",
        job_id=job_id,
        kind="test.note",
        queue="alpha",
        owner="ada",
        user_id=None,
        status=Status.RUNNING,
        attempt=1,
        progress=percent,
    )
