"""How much may wait for one user, whichever way it is submitted."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import sqlalchemy as sa

from app.api.auth import Caller
from app.api.quotas import WaitingQuota
from app.errors import QuotaExceeded
from app.history.reader import Reader
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, Answer, ApiUnderTest, running_api
from tests.support.waiting import eventually

NOTE = "/api/tasks/test/note"
BATCH = "/api/tasks/batch"

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
def bounded(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_waiting_per_user": 3})


@pytest.fixture
async def api(bounded: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(bounded) as running:
        yield running


async def submit(api: ApiUnderTest, key: str = ADA_KEY, **options: Any) -> Answer:
    return await api.ask("POST", NOTE, key=key, json={"parameters": {}} | options)


def batch(count: int) -> dict[str, Any]:
    return {"tasks": [{"task_name": "note", "params": {}}] * count}


async def test_what_exceeds_the_quota_is_refused_by_name_until_something_has_started(api: ApiUnderTest) -> None:
    answers = [await submit(api) for _ in range(4)]
    await house.start(api.house, want=1)

    again = await submit(api)

    assert [answer.status for answer in (*answers, again)] == [202, 202, 202, 429, 202]
    assert answers[-1].json["code"] == "quota_exceeded"
    assert "MAX_WAITING_PER_USER" in answers[-1].json["detail"]


async def test_a_batch_counts_whole_and_is_accepted_whole_or_not_at_all(api: ApiUnderTest) -> None:
    statuses = [(await api.ask("POST", BATCH, key=ADA_KEY, json=batch(count))).status for count in (4, 2, 2, 1)]

    assert statuses == [429, 202, 429, 202]
    assert (await api.ask("GET", "/api/tasks/count/all", key=ADA_KEY)).json["count"] == 3


async def test_every_way_to_submit_has_the_quota(api: ApiUnderTest) -> None:
    task = (await submit(api)).json["task_id"]
    await api.ask("DELETE", f"/api/tasks/{task}", key=ADA_KEY)
    await api.ask("POST", BATCH, key=ADA_KEY, json=batch(3))

    answers = [
        await submit(api),
        await submit(api, unique_key="once"),
        await api.ask("POST", NOTE, key=ADA_KEY, json={"parameters": {}}, headers={"Idempotency-Key": "k"}),
        await api.ask("POST", "/api/tasks/enqueue", key=ADA_KEY, json={"task_name": "note", "params": {}}),
        await api.ask("POST", f"/api/tasks/{task}/retry", key=ADA_KEY),
    ]

    assert [(answer.status, answer.json["code"]) for answer in answers] == [(429, "quota_exceeded")] * 5


async def test_quotas_are_the_users_own_and_administrators_have_none(api: ApiUnderTest) -> None:
    await api.ask("POST", BATCH, key=ADA_KEY, json=batch(3))

    others = [await submit(api, BOB_KEY), await api.ask("POST", BATCH, json=batch(5))]

    assert [answer.status for answer in others] == [202, 202]


async def test_many_at_once_exceed_the_quota_by_no_more_than_they_are(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        bounded = settings.model_copy(update={"max_waiting_per_user": 40})
        apis = [await stack.enter_async_context(running_api(bounded)) for _ in range(2)]

        async def press(number: int) -> list[int]:
            return [(await submit(apis[number % 2])).status for _ in range(20)]

        found = await asyncio.gather(*(press(number) for number in range(8)))
        after = await submit(apis[0])

    accepted = sum(statuses.count(202) for statuses in found)
    assert {status for statuses in found for status in statuses} == {202, 429}
    assert 40 <= accepted <= 40 + 8
    assert after.status == 429


async def test_without_a_quota_nothing_is_counted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_api(settings.model_copy(update={"max_waiting_per_user": 0})) as api:
        monkeypatch.setattr(api.house.reader, "count_waiting", None)

        assert (await submit(api)).status == 202


async def test_submits_that_come_together_are_counted_for_together_and_none_slips_past(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, asked = Reader.count_waiting, []

    async def watched(reader: Reader, owners: Iterable[str], *, at_most: int) -> dict[str, int]:
        asked.append(list(owners))
        return await count(reader, asked[-1], at_most=at_most)

    monkeypatch.setattr(Reader, "count_waiting", watched)
    quota, are_committed = WaitingQuota(api.house.reader, 3), asyncio.Event()

    async def hold() -> None:
        async with quota.held(Caller(user_id="ada", is_admin=False), 1):
            await are_committed.wait()

    submits = [asyncio.create_task(hold()) for _ in range(5)]
    await eventually(lambda: sum(task.done() for task in submits) == 2)
    are_committed.set()
    found = await asyncio.gather(*submits, return_exceptions=True)

    assert asked == [["ada"]]
    assert [isinstance(one, QuotaExceeded) for one in found] == [False, False, False, True, True]


@pytest.mark.databases("sqlite")
async def test_the_count_reads_an_index_of_what_waits_and_nothing_else(api: ApiUnderTest) -> None:
    seen: list[tuple[str, Any]] = []
    sa.event.listen(
        api.house.database.reads.sync_engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, values, *rest: seen.append((statement, values)),
    )
    await api.house.reader.count_waiting(["ada"], at_most=3)

    count, values = next(found for found in seen if "count(" in found[0])
    async with api.house.database.read() as connection:
        found = await connection.exec_driver_sql("EXPLAIN QUERY PLAN " + count, values)
        plan = " ".join(str(tuple(row)) for row in found)

    assert "SEARCH background_tasks USING COVERING INDEX ix_background_tasks_waiting" in plan
