"""Requests that may be repeated: done once, answered as often as they come."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.api.idempotency import Repeats
from app.clock import utc_now
from app.history.receipts import KEPT, read_receipt
from app.history.retention import delete_receipts
from app.history.tables import receipts
from app.settings import Settings
from tests.support.api import ADA_KEY, BOB_KEY, Answer, ApiUnderTest, running_api

NOTE = "/api/tasks/test/note"
BODY = {"parameters": {"text": "hello"}}

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def send(api: ApiUnderTest, idempotency_key: str, body: Any = None, path: str = NOTE, **options: Any) -> Answer:
    headers = {"Idempotency-Key": idempotency_key}
    return await api.ask("POST", path, headers=headers, json=BODY if body is None else body, **options)


async def total(api: ApiUnderTest) -> int:
    found: int = (await api.ask("GET", "/api/tasks/count/all")).json["count"]
    return found


async def age(api: ApiUnderTest, by: timedelta) -> None:
    """Make every receipt older."""
    async with api.house.database.write() as connection:
        await connection.execute(sa.update(receipts).values(created_at=utc_now() - by))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (NOTE, BODY),
        ("/api/tasks/enqueue", {"task_name": "note", "params": {}}),
        ("/api/tasks/execute", {"task_name": "note", "args": ["hello"]}),
        ("/api/tasks/batch", {"tasks": [{"task_name": "note", "params": {}}] * 3}),
    ],
)
async def test_the_same_request_is_answered_again_and_not_done_again(
    api: ApiUnderTest, path: str, body: dict[str, Any]
) -> None:
    first = await send(api, "k", body, path)
    before = await total(api)

    second = await send(api, "k", body, path.replace("/api/", "/api/v1/") + "/")

    assert first.status in {201, 202}
    assert (second.status, second.text) == (first.status, first.text)
    assert second.headers.get("Location") == first.headers.get("Location")
    assert (first.headers.get("Idempotency-Replayed"), second.headers["Idempotency-Replayed"]) == (None, "true")
    assert await total(api) == before


async def test_another_request_under_the_same_key_is_refused(api: ApiUnderTest) -> None:
    await send(api, "k", {"parameters": {}})

    other_body = await send(api, "k", {"parameters": {"text": "bye"}})
    other_path = await send(api, "k", {"parameters": {}}, "/api/tasks/test/count")

    for answer in (other_body, other_path):
        assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    assert await total(api) == 1


async def test_keys_are_the_callers_own(api: ApiUnderTest) -> None:
    first = await send(api, "k", key=ADA_KEY)

    second = await send(api, "k", {"parameters": {"text": "bye"}}, key=BOB_KEY)

    assert (first.status, second.status) == (202, 202)


async def test_a_key_is_as_good_as_new_after_a_day(api: ApiUnderTest) -> None:
    first = await send(api, "k")
    await age(api, KEPT - timedelta(minutes=1))
    replayed = await send(api, "k")
    await age(api, KEPT + timedelta(minutes=1))

    second = await send(api, "k", {"parameters": {"text": "bye"}})

    assert replayed.json["task_id"] == first.json["task_id"]
    assert second.status == 202
    assert await total(api) == 2


async def test_what_is_no_longer_kept_is_pruned(api: ApiUnderTest) -> None:
    await send(api, "old")
    await age(api, KEPT + timedelta(minutes=1))
    await send(api, "young")

    deleted = await delete_receipts(api.house.database, utc_now() - KEPT)

    assert deleted == 1
    assert await read_receipt(api.house.database, "admin", "young", now=utc_now()) is not None


async def test_a_refused_request_leaves_its_key_free(api: ApiUnderTest) -> None:
    await api.submit(unique_key="nightly")
    refused = await send(api, "k", {"parameters": {"text": 5}})
    in_the_way = await send(api, "k", BODY | {"unique_key": "nightly"})

    accepted = await send(api, "k")

    assert (refused.status, in_the_way.status, accepted.status) == (422, 409, 202)


async def test_a_repeated_request_with_a_unique_key_is_replayed_and_no_conflict(api: ApiUnderTest) -> None:
    body = BODY | {"unique_key": "nightly"}
    first = await send(api, "k", body)

    second = await send(api, "k", body)

    assert (first.status, second.text) == (202, first.text)


@pytest.mark.parametrize("idempotency_key", ["", "x" * 256])
async def test_a_key_that_is_none_is_refused(api: ApiUnderTest, idempotency_key: str) -> None:
    answer = await send(api, idempotency_key)

    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert await total(api) == 0


async def test_of_many_at_once_one_is_done_and_the_others_are_told_to_wait_or_its_answer(api: ApiUnderTest) -> None:
    answers = await asyncio.gather(*(send(api, "k") for _ in range(20)))

    assert {answer.status for answer in answers} <= {202, 409}
    assert {answer.json["code"] for answer in answers if answer.status == 409} <= {"request_in_flight"}
    assert len({answer.json["task_id"] for answer in answers if answer.status == 202}) == 1
    assert await total(api) == 1


async def test_while_a_request_is_answered_another_with_its_key_is_told_to_wait(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, entered, go_on = api.house.lifecycle.submit, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        await go_on.wait()
        return await submit(*args, **kwargs)

    monkeypatch.setattr(api.house.lifecycle, "submit", slow)
    first = asyncio.create_task(send(api, "k"))
    await entered.wait()

    second = await send(api, "k")
    of_another_caller = asyncio.create_task(send(api, "k", key=BOB_KEY))

    go_on.set()
    assert (second.status, second.json["code"]) == (409, "request_in_flight")
    assert ((await first).status, (await of_another_caller).status) == (202, 202)


@pytest.mark.parametrize("body", [BODY, BODY | {"unique_key": "nightly"}], ids=["plain", "unique"])
async def test_two_processes_with_one_key_do_it_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    """Without the memory of the process, as if each request came to another one: the database decides alone."""
    monkeypatch.setattr(Repeats, "once", without_memory(Repeats.once))
    async with running_api(settings) as api:
        answers = await asyncio.gather(*(send(api, "k", body) for _ in range(10)))

        assert {answer.status for answer in answers} == {202}
        assert len({answer.json["task_id"] for answer in answers}) == 1
        assert await total(api) == 1


def without_memory(once: Any) -> Any:
    async def forgetful(_repeats: Repeats, call: Any, submit: Any) -> Any:
        return await once(Repeats(), call, submit)

    return forgetful
