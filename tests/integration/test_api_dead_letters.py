"""Dead letters over HTTP: what failed, why, and what became of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.api import dead_letters as dead_letter_routes
from app.api import tasks
from app.clock import utc_now
from app.history.retention import delete_ended
from app.history.tables import discards, jobs
from app.jobs.dead_letters import CODES, KEPT, Category
from app.jobs.status import Status
from app.settings import Settings
from tests.support import house
from tests.support.api import ADA_KEY, BOB_KEY, ApiUnderTest, running_api

LETTERS = "/api/dead-letters"

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


async def fail(api: ApiUnderTest, code: str = "unknown", *, key: str = ADA_KEY) -> str:
    """Submit a ``note`` that fails with a code; return its id."""
    task = await api.submit(key=key)
    (job,) = await house.start(api.house)
    assert job.id == task["task_id"]
    await house.settle(api.house, job, Status.FAILED, error=replace(house.OOPS, code=code))
    return job.id


async def listed(api: ApiUnderTest, query: str = "", **options: Any) -> dict[str, str]:
    """Return the statuses of the dead letters that a query finds, by id."""
    answer = await api.ask("GET", f"{LETTERS}{query}", **options)
    assert answer.status == 200, answer.text
    return {letter["id"]: letter["status"] for letter in answer.json["dead_letters"]}


async def replay(api: ApiUnderTest, letter: str, status: Status | None) -> str:
    """Replay a dead letter and, unless that is None, let it end like this; return the new task's id."""
    answer = await api.ask("POST", f"{LETTERS}/{letter}/replay")
    assert answer.status == 202, answer.text
    if status is not None:
        (job,) = await house.start(api.house)
        await house.settle(api.house, job, status)
    return str(answer.json["task_id"])


async def test_what_failed_is_a_dead_letter_and_nothing_else(api: ApiUnderTest) -> None:
    failed = await fail(api)
    cancelled = await api.submit()
    await api.ask("DELETE", f"/api/tasks/{cancelled['task_id']}")
    await house.settle(api.house, await house.start_one(api.house))

    (letter,) = (await api.ask("GET", LETTERS)).json["dead_letters"]

    assert (letter["id"], letter["task_id"], letter["category"], letter["status"]) == (
        failed,
        failed,
        "unknown",
        "pending",
    )
    assert letter["error"]["message"] == "oops"
    assert letter["expires_at"] > letter["failed_at"]


async def test_the_category_follows_from_the_error(api: ApiUnderTest) -> None:
    codes = {category: min(known) for category, known in CODES.items()} | {Category.UNKNOWN: "surprise"}
    ids = {category: await fail(api, code) for category, code in codes.items()}

    for category, letter in ids.items():
        assert list(await listed(api, f"?category={category}")) == [letter]


async def test_a_replay_that_completes_recovers_it(api: ApiUnderTest) -> None:
    failed = await fail(api)

    again = await replay(api, failed, Status.COMPLETED)

    assert await listed(api) == {failed: "recovered"}
    assert (await house.row(api.house, again)).retried_from == failed
    assert (await api.ask("GET", LETTERS)).json["dead_letters"][0]["replays"] == [again]


async def test_a_replay_that_fails_is_a_dead_letter_of_its_own_and_recovers_both_in_the_end(api: ApiUnderTest) -> None:
    first = await fail(api)

    second = await replay(api, first, Status.FAILED)
    between = await listed(api)
    await replay(api, second, Status.COMPLETED)

    assert between == {first: "pending", second: "pending"}
    assert await listed(api) == {first: "recovered", second: "recovered"}


async def test_it_is_not_replayed_while_a_replay_lives(api: ApiUnderTest) -> None:
    failed = await fail(api)
    again = await replay(api, failed, None)

    answer = await api.ask("POST", f"{LETTERS}/{failed}/replay")

    assert answer.status == 409
    assert again in answer.json["detail"]


async def test_of_two_who_replay_it_at_once_one_does_and_the_other_is_told(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = await fail(api)
    both_have_looked = asyncio.Barrier(2)
    replayed = tasks.replay

    async def replay_together(*args: Any, **options: Any) -> Any:
        await both_have_looked.wait()
        return await replayed(*args, **options)

    monkeypatch.setattr(dead_letter_routes, "replay", replay_together)

    answers = await asyncio.gather(*(api.ask("POST", f"{LETTERS}/{failed}/replay") for _ in range(2)))

    winner, loser = sorted(answers, key=lambda answer: answer.status)
    (letter,) = (await api.ask("GET", LETTERS)).json["dead_letters"]
    assert (winner.status, loser.status) == (202, 409)
    assert letter["replays"] == [winner.json["task_id"]]
    assert winner.json["task_id"] in loser.json["detail"]


async def test_what_was_given_up_is_discarded_for_good(api: ApiUnderTest) -> None:
    failed = await fail(api)

    answer = await api.ask("POST", f"{LETTERS}/{failed}/discard")
    again = await api.ask("POST", f"{LETTERS}/{failed}/discard")
    replayed = await api.ask("POST", f"{LETTERS}/{failed}/replay")

    assert (answer.status, answer.json["status"], answer.json["discarded_by"]) == (200, "discarded", "admin")
    assert (again.status, replayed.status) == (409, 409)
    assert await listed(api) == {failed: "discarded"}


async def test_after_thirty_days_it_has_expired(api: ApiUnderTest) -> None:
    old, young = await fail(api), await fail(api)
    await end_at(api, old, utc_now() - KEPT - timedelta(minutes=1))
    await end_at(api, young, utc_now() - KEPT + timedelta(minutes=1))

    answer = await api.ask("POST", f"{LETTERS}/{old}/replay")

    assert await listed(api) == {old: "expired", young: "pending"}
    assert answer.status == 409


async def test_it_is_found_by_what_became_of_it_and_by_its_task(api: ApiUnderTest) -> None:
    waits, gone = await fail(api, "timeout"), await fail(api, "timeout")
    await api.ask("POST", f"{LETTERS}/{gone}/discard")

    assert list(await listed(api, "?status=pending&category=timeout&task_name=note&queue=alpha")) == [waits]
    assert list(await listed(api, "?status=discarded")) == [gone]
    assert not await listed(api, "?queue=beta")


async def test_its_pages_cover_all_once_each(api: ApiUnderTest) -> None:
    failed = [await fail(api) for _ in range(5)]

    page = (await api.ask("GET", f"{LETTERS}?limit=2")).json
    found = [letter["id"] for letter in page["dead_letters"]]
    while page["next_cursor"]:
        page = (await api.ask("GET", f"{LETTERS}?limit=2&cursor={page['next_cursor']}")).json
        found += [letter["id"] for letter in page["dead_letters"]]

    assert (found, page["total_count"]) == (failed[::-1], 5)


async def test_a_caller_sees_their_own(api: ApiUnderTest) -> None:
    hers, his = await fail(api, key=ADA_KEY), await fail(api, key=BOB_KEY)

    assert list(await listed(api, key=ADA_KEY)) == [hers]
    assert set(await listed(api)) == {hers, his}


async def test_what_cron_submitted_is_among_them(api: ApiUnderTest) -> None:
    tick = house.order(schedule="hourly", tick_at=house.whole_ms(utc_now()))
    await api.house.lifecycle.submit_tick(tick)
    (job,) = await house.start(api.house)
    await house.settle(api.house, job, Status.FAILED)

    assert list(await listed(api)) == [job.id]


async def test_retention_takes_the_discard_along(api: ApiUnderTest) -> None:
    failed = await fail(api)
    await api.ask("POST", f"{LETTERS}/{failed}/discard")

    deleted = [count async for count in delete_ended(api.house.database, Status.FAILED, utc_now())]

    async with api.house.database.read() as connection:
        left = (await connection.execute(sa.select(sa.func.count()).select_from(discards))).scalar_one()
    assert (deleted, left) == ([1], 0)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/nonsense/replay", 404),
        ("POST", "/nonsense/discard", 404),
        ("GET", "?status=nonsense", 422),
        ("GET", "?category=nonsense", 422),
        ("GET", "?cursor=nonsense", 400),
        ("GET", "?limit=1001", 422),
    ],
)
async def test_what_there_is_not_is_told(api: ApiUnderTest, method: str, path: str, status: int) -> None:
    assert (await api.ask(method, f"{LETTERS}{path}")).status == status


async def test_only_what_failed_can_be_discarded_or_replayed(api: ApiUnderTest) -> None:
    task = await api.submit()

    for verb in ("discard", "replay"):
        assert (await api.ask("POST", f"{LETTERS}/{task['task_id']}/{verb}")).status == 404


async def end_at(api: ApiUnderTest, job_id: str, moment: Any) -> None:
    async with api.house.database.write() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(completed_at=moment))
