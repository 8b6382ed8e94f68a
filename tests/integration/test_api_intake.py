"""The ways to submit over HTTP: options, unique keys, execute, batches."""

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from app.clock import iso, parse_iso, utc_now
from app.jobs.status import Status
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, Answer, ApiUnderTest, running_api

NOTE = "/api/tasks/test/note"
ENQUEUE = "/api/tasks/enqueue"
EXECUTE = "/api/tasks/execute"
BATCH = "/api/tasks/batch"
NDJSON = {"Content-Type": "application/x-ndjson"}

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def total(api: ApiUnderTest) -> int:
    found: int = (await api.ask("GET", "/api/tasks/count/all?include=all")).json["count"]
    return found


def bodies(options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (NOTE, {"parameters": {}} | options),
        (ENQUEUE, {"task_name": "note", "params": {}} | options),
        (EXECUTE, {"task_name": "note"} | options),
        (BATCH, {"tasks": [{"task_name": "note", "params": {}} | options]}),
    ]


async def submitted(api: ApiUnderTest, path: str, body: dict[str, Any]) -> Any:
    answer = await api.ask("POST", path, json=body)
    assert answer.status in {201, 202}, answer.text
    task_id = answer.json["task_ids"][0] if path == BATCH else answer.json["task_id"]
    return (await api.ask("GET", f"/api/tasks/{task_id}")).json


# --- options -----------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
async def test_every_route_that_submits_takes_every_option(api: ApiUnderTest) -> None:
    options = {"priority": 7, "max_retries": 10, "countdown": 60, "expires_in": 30, "user_id": "eve"}
    for at, (path, body) in enumerate(bodies(options)):
        key = f"once-{at}"
        each = body["tasks"][0] if path == BATCH else body
        each["unique_key"] = key

        task = await submitted(api, path, body)

        row = await house.row(api.house, task["task_id"])
        assert (task["priority"], task["max_retries"], task["unique_key"], task["user_id"]) == (7, 10, key, "eve")
        assert row.scheduled_for is not None
        assert row.expires_at == row.due_at + timedelta(seconds=30)
        assert timedelta(seconds=50) < row.due_at - row.created_at <= timedelta(seconds=61)


@pytest.mark.databases("sqlite")
async def test_a_time_in_the_past_is_now(api: ApiUnderTest) -> None:
    for path, body in bodies({"eta": "2020-01-01T00:00:00Z"}):
        task = await submitted(api, path, body)

        row = await house.row(api.house, task["task_id"])
        assert row.due_at == row.created_at
    assert len((await house.claim(api.house)).claims) == 4


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("wrong", [{"max_retries": 11}, {"max_retries": -1}, {"priority": 0}, {"unique_key": ""}])
async def test_an_option_out_of_range_is_refused_everywhere(api: ApiUnderTest, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    for path, body in bodies(wrong):
        answer = await api.ask("POST", path, json=body)

        pointer = f"/tasks/0/{name}" if path == BATCH else f"/{name}"
        assert (answer.status, [one["pointer"] for one in answer.json["errors"]]) == (422, [pointer])
    assert await total(api) == 0


@pytest.mark.databases("sqlite")
async def test_two_different_users_are_refused_everywhere(api: ApiUnderTest) -> None:
    named = [
        (NOTE, {"user_id": "eve", "parameters": {"user_id": "mallory"}}, "/parameters/user_id"),
        (ENQUEUE, {"task_name": "note", "user_id": "eve", "params": {"user_id": "mallory"}}, "/params/user_id"),
        (EXECUTE, {"task_name": "note", "user_id": "eve", "kwargs": {"user_id": "mallory"}}, "/kwargs/user_id"),
        (EXECUTE, {"task_name": "note", "user_id": "eve", "args": ["", "mallory"]}, "/args/1"),
    ]
    for path, body, pointer in named:
        answer = await api.ask("POST", path, json=body)

        assert (answer.status, [one["pointer"] for one in answer.json["errors"]]) == (422, [pointer])


# --- unique keys -------------------------------------------------------------------------------


async def test_a_second_task_with_a_live_unique_key_is_refused_and_names_the_first(api: ApiUnderTest) -> None:
    first = await api.submit(key=ADA_KEY, unique_key="nightly")

    second = await api.ask("POST", NOTE, key=ADA_KEY, json={"parameters": {}, "unique_key": "nightly"})

    assert (second.status, second.json["code"]) == (409, "unique_key_taken")
    assert first["task_id"] in second.json["detail"]
    assert await total(api) == 1


async def test_a_unique_key_is_free_again_once_its_task_has_ended(api: ApiUnderTest) -> None:
    first = await api.submit(unique_key="nightly")
    (job,) = await house.start(api.house)
    held = await api.ask("POST", NOTE, json={"parameters": {}, "unique_key": "nightly"})
    await house.settle(api.house, job)

    second = await api.submit(unique_key="nightly")

    assert held.status == 409
    assert second["task_id"] != first["task_id"]


async def test_unique_keys_are_the_callers_own(api: ApiUnderTest) -> None:
    await api.submit(key=ADA_KEY, unique_key="nightly")

    await api.submit(key=BOB_KEY, unique_key="nightly")

    assert await total(api) == 2


async def test_of_many_at_once_one_gets_the_unique_key(api: ApiUnderTest) -> None:
    answers = await asyncio.gather(
        *(api.ask("POST", NOTE, json={"parameters": {}, "unique_key": "nightly"}) for _ in range(20))
    )

    assert sorted(answer.status for answer in answers) == [202] + [409] * 19
    assert await total(api) == 1


async def test_a_retry_does_not_get_past_a_live_unique_key(api: ApiUnderTest) -> None:
    failed = await api.submit(unique_key="nightly")
    (job,) = await house.start(api.house)
    await house.settle(api.house, job, Status.FAILED)
    await api.submit(unique_key="nightly")

    answer = await api.ask("POST", f"/api/tasks/{failed['task_id']}/retry")

    assert (answer.status, answer.json["code"]) == (409, "unique_key_taken")


# --- execute -----------------------------------------------------------------------------------


@pytest.mark.databases("sqlite")
async def test_positional_and_named_parameters_meet(api: ApiUnderTest) -> None:
    body = {"task_name": "note", "args": ["hello"], "kwargs": {"user_id": "eve"}, "queue": "alpha"}

    answer = await api.ask("POST", EXECUTE, json=body)

    assert (answer.status, answer.json["params"]) == (202, {"text": "hello", "user_id": "eve"})
    assert answer.headers["Location"] == f"/api/tasks/{answer.json['task_id']}"


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"args": [5]}, 422, "/args/0"),
        ({"args": ["a", "b", "c"]}, 422, "/args/2"),
        ({"args": ["a"], "kwargs": {"text": "b"}}, 422, "/args/0"),
        ({"kwargs": {"nope": 1}}, 422, "/kwargs/nope"),
        ({"args": "a"}, 422, "/args"),
        ({"kwargs": []}, 422, "/kwargs"),
        ({"queue": "nonsense"}, 400, None),
        ({"queue": "beta"}, 400, None),
        ({"queue": 5}, 422, "/queue"),
    ],
)
async def test_what_execute_cannot_place_is_refused(
    api: ApiUnderTest, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = await api.ask("POST", EXECUTE, json={"task_name": "note"} | body)

    assert answer.status == status, answer.text
    assert pointer is None or [one["pointer"] for one in answer.json["errors"]] == [pointer]


# --- batches -----------------------------------------------------------------------------------


def lines(*tasks: dict[str, Any]) -> bytes:
    return b"\n".join(map(orjson.dumps, tasks))


async def test_a_batch_is_accepted_in_order_as_json_or_ndjson(api: ApiUnderTest) -> None:
    tasks = [{"task_name": "note", "params": {"text": str(number)}} for number in range(50)]

    for sent in ({"json": {"tasks": tasks}}, {"data": lines(*tasks), "headers": NDJSON}):
        answer = await api.ask("POST", BATCH, **sent)

        assert (answer.status, answer.json["count"]) == (202, 50)
        texts = [(await house.row(api.house, task_id)).params["text"] for task_id in answer.json["task_ids"]]
        assert texts == [task["params"]["text"] for task in tasks]  # type: ignore[index]
    assert len((await house.claim(api.house, want=100)).claims) == 100


async def test_a_batch_with_one_bad_task_is_not_accepted_at_all(api: ApiUnderTest) -> None:
    good = {"task_name": "note", "params": {}}
    bad = [
        {"task_name": "note", "params": {"text": 5}},
        {"task_name": "nonsense", "params": {}},
        {"task_name": "note", "params": {}, "task_type": "nonsense"},
        {"params": {}},
        {"task_name": "sweep.nothing", "params": {"text": "x" * 70_000}},
    ]

    answer = await api.ask("POST", BATCH, json={"tasks": [good, *bad, good]})

    found = [(one["pointer"], one["code"]) for one in answer.json["errors"]]
    assert answer.status == 422
    assert found == [
        ("/tasks/1/params/text", "string_type"),
        ("/tasks/2/task_name", "unknown_task"),
        ("/tasks/3", "bad_request"),
        ("/tasks/4/task_name", "missing"),
        ("/tasks/5/task_name", "unknown_task"),
    ]
    assert await total(api) == 0


@pytest.mark.databases("sqlite")
async def test_a_bad_line_is_named_by_its_number(api: ApiUnderTest) -> None:
    body = lines({"task_name": "note", "params": {}}) + b"\n\n{broken\n"

    answer = await api.ask("POST", BATCH, data=body, headers=NDJSON)

    (wrong,) = answer.json["errors"]
    assert (answer.status, wrong["pointer"], wrong["code"]) == (422, "/1", "malformed_json")
    assert wrong["detail"].startswith("Line 3: ")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {"tasks": []}}, 422),
        ({"json": {"tasks": {}}}, 422),
        ({"json": {"tasks": [{"task_name": "note", "params": {}}], "more": 1}}, 422),
        ({"json": []}, 422),
        ({"json": {"tasks": [{}] * 10_001}}, 413),
        ({"data": b"", "headers": NDJSON}, 422),
        ({"data": b"{}\n" * 10_001, "headers": NDJSON}, 413),
        ({"data": b"{}", "headers": {"Content-Type": "text/csv"}}, 415),
        ({"data": io.BytesIO(b"x" * (16 * 1024 * 1024 + 1)), "headers": NDJSON}, 413),
    ],
)
async def test_what_is_no_batch_is_refused(api: ApiUnderTest, options: dict[str, Any], status: int) -> None:
    answer = await api.ask("POST", BATCH, **options)

    assert answer.status == status, answer.text


async def test_a_batch_shares_no_unique_key_with_itself_or_the_living(api: ApiUnderTest) -> None:
    task = {"task_name": "note", "params": {}, "unique_key": "nightly"}

    with_itself = await api.ask("POST", BATCH, json={"tasks": [task, task]})
    await api.submit(unique_key="nightly")
    with_the_living = await api.ask("POST", BATCH, json={"tasks": [{"task_name": "note", "params": {}}, task]})

    assert (with_itself.status, with_itself.json["errors"][0]["pointer"]) == (422, "/tasks/1/unique_key")
    assert with_the_living.status == 409
    assert await total(api) == 1


@pytest.mark.databases("sqlite")
async def test_a_batch_says_how_many_priorities_were_lowered(api: ApiUnderTest) -> None:
    tasks = [{"task_name": "test.count", "params": {}, "priority": 10}, {"task_name": "note", "params": {}}]

    answer = await api.ask("POST", BATCH, json={"tasks": tasks})

    assert answer.json["message"] == "2 tasks enqueued successfully (1 with a lowered priority)"


@pytest.mark.databases("sqlite")
async def test_administrators_tasks_stay_theirs_in_a_batch(api: ApiUnderTest) -> None:
    tasks = [{"task_name": "test.sweep", "params": {}}, {"task_name": "note", "params": {}, "user_id": "bob"}]

    answer = await api.ask("POST", BATCH, key=ADA_KEY, json={"tasks": tasks})

    assert answer.status == 422
    assert [one["code"] for one in answer.json["errors"]] == ["forbidden", "forbidden"]


# --- change ------------------------------------------------------------------------------------


async def test_a_waiting_task_gets_another_time_and_its_expiry_moves_along(api: ApiUnderTest) -> None:
    task = await api.submit(expires_in=60)
    eta = utc_now() + timedelta(hours=2)

    answer = await api.ask("PATCH", f"/api/tasks/{task['task_id']}", json={"eta": iso(eta), "priority": 9})

    row = await house.row(api.house, task["task_id"])
    assert (answer.status, row.priority) == (200, 9)
    assert close(row.due_at, eta)
    assert row.expires_at == row.due_at + timedelta(seconds=60)
    assert close(parse_iso(answer.json["scheduled_for"]), eta)
    assert not (await house.claim(api.house)).claims
    await api.ask("PATCH", f"/api/tasks/{task['task_id']}", json={"eta": "2020-01-01T00:00:00Z"})
    assert [job.id for job in await house.start(api.house)] == [task["task_id"]]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("body", [{}, {"eta": "9999-01-01T00:00:00Z"}, {"eta": 5}, {"priority": 11}, {"nope": 1}])
async def test_a_change_that_says_nothing_or_nonsense_is_refused(api: ApiUnderTest, body: dict[str, Any]) -> None:
    task = await api.submit()

    answer: Answer = await api.ask("PATCH", f"/api/tasks/{task['task_id']}", json=body)

    assert answer.status == 422


@pytest.mark.parametrize("body", [{"priority": 1}, {"eta": "2030-01-01T00:00:00Z"}])
async def test_a_running_task_is_not_changed(api: ApiUnderTest, body: dict[str, Any]) -> None:
    job = await house.start_one(api.house)

    answer = await api.ask("PATCH", f"/api/tasks/{job.id}", json=body)

    assert (answer.status, answer.json["code"]) == (409, "conflict")


def close(first: datetime, second: datetime) -> bool:
    return abs(first - second) < timedelta(milliseconds=2)
