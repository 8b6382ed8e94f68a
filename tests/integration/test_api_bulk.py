"""Many tasks at once over HTTP: bulk changes, purges, cancel all."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.clock import utc_now
from app.history.rows import Job
from app.jobs.bulk import bulk as bulk_type
from app.jobs.catalogue import Catalogue
from app.jobs.contract import Family
from app.jobs.status import Status
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, Answer, ApiUnderTest, api_catalogue, running_api
from tests.support.workplace import becomes, make_worker
from workers.families.system import change_many

BULK = "/api/tasks/bulk"

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    families = [*api_catalogue().families.values(), Family(name="system", summary="Bulk.", job_types=(bulk_type,))]
    async with running_api(settings, catalogue=Catalogue(families)) as running:
        yield running


async def drain(api: ApiUnderTest) -> None:
    works: dict[str, Any] = {bulk_type.kind: change_many}
    await make_worker(api.house, works, queues=("default",), burst=True).async_run()


async def change(api: ApiUnderTest, body: dict[str, Any]) -> Any:
    """Ask for a bulk change, let a worker do it, and return its task."""
    answer = await api.ask("POST", BULK, json=body)
    assert answer.status == 202, answer.text
    await drain(api)
    await becomes(api.house, answer.json["task_id"], Status.COMPLETED)
    return (await api.ask("GET", answer.headers["Location"])).json


async def of_each_status(api: ApiUnderTest) -> dict[str, Job]:
    """Make one ``note`` of each status; return their rows by status."""
    ids: dict[str, str] = {}
    for status in (Status.COMPLETED, Status.FAILED, Status.RUNNING):
        job = await house.start_one(api.house)
        ids[status] = job.id
        if status is not Status.RUNNING:
            await house.settle(api.house, job, status)
    cancelled = await api.submit()
    await api.ask("DELETE", f"/api/tasks/{cancelled['task_id']}")
    ids["cancelled"], ids["pending"] = cancelled["task_id"], (await api.submit())["task_id"]
    return {status: await house.row(api.house, job_id) for status, job_id in ids.items()}


async def statuses(api: ApiUnderTest, jobs: dict[str, Job]) -> dict[str, str]:
    rows = await api.house.reader.get_many([job.id for job in jobs.values()])
    return {name: rows[job.id].status.value if job.id in rows else "gone" for name, job in jobs.items()}


# --- bulk --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"action": "cancel"}, {"pending": "cancelled", "running": "cancelled"}),
        ({"action": "delete"}, {"completed": "gone", "failed": "gone", "cancelled": "gone"}),
        ({"action": "retry"}, {}),
    ],
)
async def test_an_action_touches_what_it_applies_to(
    api: ApiUnderTest, body: dict[str, Any], changed: dict[str, str]
) -> None:
    jobs = await of_each_status(api)

    task = await change(api, body | {"filter": {"task_name": "note"}})

    expected = {name: name for name in jobs} | changed
    count = {"cancel": 2, "delete": 3, "retry": 2}[body["action"]]
    assert await statuses(api, jobs) == expected
    assert task["result"] == {"action": body["action"], "matched": count, "changed": count}


async def test_a_bulk_cancel_leaves_itself_alone(api: ApiUnderTest) -> None:
    await api.submit()

    parameters = {"action": "cancel", "selection": {"origin": "all"}}
    answer = await api.ask("POST", "/api/tasks/system/bulk", json={"parameters": parameters})
    await drain(api)

    job = await becomes(api.house, answer.json["task_id"], Status.COMPLETED)
    assert job.result["changed"] == 1


async def test_what_is_submitted_later_is_not_meant(api: ApiUnderTest) -> None:
    await api.submit()
    answer = await api.ask("POST", BULK, json={"action": "cancel", "filter": {"task_name": "note"}})
    later = await api.submit()

    await drain(api)

    task = await becomes(api.house, answer.json["task_id"], Status.COMPLETED)
    assert task.result["changed"] == 1
    assert (await house.row(api.house, later["task_id"])).status is Status.PENDING


async def test_the_guard_of_a_batch_is_the_status_of_each_row(api: ApiUnderTest) -> None:
    jobs = await of_each_status(api)
    ids, door = {name: [job.id] for name, job in jobs.items()}, api.house.lifecycle.bulk

    counts = [
        await door.delete(ids["pending"] + ids["running"]),
        await door.cancel(ids["completed"] + ids["failed"] + ids["cancelled"]),
        await door.cancel(ids["running"], include_running=False),
        await door.reprioritise(ids["running"] + ids["failed"], priority=9),
        await door.forget_results(ids["running"]),
    ]

    assert counts == [0] * 5
    assert await statuses(api, jobs) == {name: name for name in jobs}


async def test_the_last_tick_of_a_schedule_is_not_deleted(api: ApiUnderTest) -> None:
    ticks = [house.whole_ms(utc_now()) - timedelta(hours=hours) for hours in (2, 1)]
    for tick in ticks:
        await api.house.lifecycle.submit_tick(house.order(schedule="hourly", tick_at=tick))
        (job,) = await house.start(api.house)
        await house.settle(api.house, job)

    task = await change(api, {"action": "delete", "filter": {"scheduled_by": "cron"}})

    assert (task["result"]["matched"], task["result"]["changed"]) == (2, 1)
    assert await api.house.reader.last_ticks() == {"hourly": ticks[1]}


async def test_a_bulk_retry_that_is_done_twice_submits_once(api: ApiUnderTest) -> None:
    jobs = await of_each_status(api)
    alone = await api.submit(unique_key="nightly")
    await api.ask("DELETE", f"/api/tasks/{alone['task_id']}")
    failed = [jobs["failed"].id, jobs["cancelled"].id, alone["task_id"]]

    for _ in range(2):
        count = await api.house.lifecycle.bulk.retry(
            failed, owner="admin", under=jobs["pending"].id, now=jobs["pending"].created_at
        )
        assert count == 3

    found = (await api.ask("GET", "/api/tasks?task_name=note")).json["tasks"]
    again = [task["retried_from"] for task in found if task["retried_from"]]
    assert sorted(again) == sorted(failed)


async def test_waiting_tasks_are_reprioritised_within_the_limits_of_their_kinds(api: ApiUnderTest) -> None:
    note = await api.submit()
    count = (await api.ask("POST", "/api/tasks/test/count", json={"parameters": {}})).json

    await change(api, {"action": "reprioritise", "priority": 10, "ids": [note["task_id"], count["task_id"]]})

    for task, priority in ((note, 10), (count, 9)):
        row = await house.row(api.house, task["task_id"])
        assert row.priority == priority
        assert await house.entry(api.house.redis, row) is not None


async def test_a_dry_run_only_counts(api: ApiUnderTest) -> None:
    jobs = await of_each_status(api)

    body = {"action": "cancel", "filter": {"queue": "alpha", "status": ["pending", "STARTED"]}, "dry_run": True}
    answer = await api.ask("POST", BULK, json=body)

    assert (answer.status, answer.json) == (200, {"action": "cancel", "count": 2, "dry_run": True})
    assert await statuses(api, jobs) == {name: name for name in jobs}


async def test_another_count_than_expected_changes_nothing(api: ApiUnderTest) -> None:
    jobs = await of_each_status(api)

    answer = await api.ask("POST", BULK, json={"action": "cancel", "filter": {"queue": "alpha"}, "expected_count": 3})

    assert (answer.status, answer.json["code"]) == (409, "conflict")
    assert "about 2 tasks, not 3" in answer.json["detail"]
    assert (await api.ask("GET", "/api/tasks/count/all?task_name=system.bulk")).json["count"] == 0
    assert await statuses(api, jobs) == {name: name for name in jobs}


async def test_many_tasks_are_changed_page_by_page(api: ApiUnderTest) -> None:
    await house.submit(api.house, *(house.order() for _ in range(1200)))

    task = await change(api, {"action": "cancel", "filter": {"status": "pending"}, "expected_count": 1200})

    assert task["result"]["changed"] == 1200
    assert (await api.ask("GET", "/api/tasks/count/all?status=cancelled")).json["count"] == 1200
    assert not (await house.claim(api.house)).claims


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "cancel"},
        {"action": "nonsense", "ids": ["x"]},
        {"action": "cancel", "ids": ["x"], "filter": {}},
        {"action": "cancel", "ids": []},
        {"action": "cancel", "filter": {}},
        {"action": "cancel", "filter": {"nope": 1}},
        {"action": "cancel", "ids": ["x"], "priority": 5},
        {"action": "reprioritise", "ids": ["x"]},
        {"action": "cancel", "ids": ["x"], "expected_count": -1},
    ],
)
async def test_a_bulk_change_that_is_not_clear_is_refused(api: ApiUnderTest, body: dict[str, Any]) -> None:
    await api.submit()

    answer = await api.ask("POST", BULK, json=body)

    assert answer.status == 422, answer.text


# --- purges ------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("path", ["purge/results", "purge/queue?queue_name=alpha", "cancel/all"])
async def test_what_has_no_way_back_needs_to_be_confirmed(api: ApiUnderTest, path: str) -> None:
    jobs = await of_each_status(api)

    answer = await api.ask("POST", f"/api/tasks/{path}")

    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert "confirm=true" in answer.json["detail"]
    assert await statuses(api, jobs) == {name: name for name in jobs}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/tasks/purge/results?confirm=true"),
        ("POST", "/api/tasks/purge/queue?queue_name=alpha&confirm=true"),
        ("POST", "/api/tasks/cancel/all?confirm=true"),
        ("POST", BULK),
        ("POST", "/api/tasks/execute"),
        ("POST", "/api/workers/x/drain"),
        ("POST", "/api/dead-letters/x/replay"),
        ("POST", "/api/dead-letters/x/discard"),
    ],
)
async def test_what_touches_everybody_is_for_administrators(api: ApiUnderTest, method: str, path: str) -> None:
    answer = await api.ask(method, path, key=ADA_KEY, json={})

    assert answer.status == 403


async def test_a_purge_touches_what_waits_in_the_one_queue(api: ApiUnderTest) -> None:
    jobs = await of_each_status(api)
    other = (await api.ask("POST", "/api/tasks/test/count", json={"parameters": {}})).json

    answer = await purge(api, "purge/queue?queue_name=alpha&confirm=true")

    assert (answer["count"], answer["queue_name"]) == (1, "alpha")
    assert await statuses(api, jobs) == {name: name for name in jobs} | {"pending": "cancelled"}
    assert [claim.id for claim in (await house.claim(api.house)).claims] == [other["task_id"]]


async def test_a_purge_never_touches_what_only_redis_knows(api: ApiUnderTest) -> None:
    stray = house.new_job()
    await api.submit()
    await api.house.redis.zadd("arq:queue:alpha:5", {stray.id: 1})

    await purge(api, "purge/queue?queue_name=alpha&confirm=true")

    assert await house.entry(api.house.redis, stray) is not None


@pytest.mark.parametrize(("terminate", "running", "count"), [("false", "running", 1), ("true", "cancelled", 2)])
async def test_cancel_all_spares_what_runs_unless_told_otherwise(
    api: ApiUnderTest, terminate: str, running: str, count: int
) -> None:
    jobs = await of_each_status(api)

    answer = await purge(api, f"cancel/all?terminate={terminate}&confirm=true")

    assert answer["count"] == count
    expected = {name: name for name in jobs} | {"pending": "cancelled", "running": running}
    assert await statuses(api, jobs) == expected


async def test_results_are_forgotten_and_the_tasks_stay(api: ApiUnderTest) -> None:
    jobs = await of_each_status(api)
    done = jobs["completed"].id
    assert await api.house.redis.exists(f"arq:result:{done}")

    answer = await purge(api, "purge/results?confirm=true")

    task = (await api.ask("GET", f"/api/tasks/{done}")).json
    assert answer["count"] == 1
    assert (task["status"], task["result"]) == ("completed", None)
    assert not await api.house.redis.exists(f"arq:result:{done}")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("query", "status"), [("confirm=true", 422), ("queue_name=nonsense&confirm=true", 400)])
async def test_a_purge_names_a_queue_that_there_is(api: ApiUnderTest, query: str, status: int) -> None:
    answer: Answer = await api.ask("POST", f"/api/tasks/purge/queue?{query}")

    assert answer.status == status


async def purge(api: ApiUnderTest, path: str) -> Any:
    answer = await api.ask("POST", f"/api/tasks/{path}")
    assert answer.status == 200, answer.text
    return answer.json
