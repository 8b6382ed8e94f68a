"""The client: repeats what is safe, comes back to a stream where it was, and says no in the service's words."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.api.resources import LINKS
from app.client import (
    Client,
    InConflict,
    NoAnswer,
    NotAccepted,
    NotAllowed,
    NotAuthenticated,
    NotThere,
    Refused,
    StreamEvent,
)
from app.history.reader import JobFilter
from app.jobs.status import Status
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.integration.test_api_stream import progress_of
from tests.support import house
from tests.support.api import ADA_KEY, ApiUnderTest, running_api
from tests.support.waiting import eventually

pytestmark = pytest.mark.databases("sqlite")  # what stands behind the routes is tested with them

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


def url_of(api: ApiUnderTest) -> str:
    url = api.client._base_url
    assert url is not None
    return str(url.origin())


@pytest.fixture
async def ada(api: ApiUnderTest) -> AsyncIterator[Client]:
    async with Client(url_of(api), ADA_KEY) as client:
        yield client


async def run_one(api: ApiUnderTest) -> None:
    job, *_ = await eventually(lambda: house.start(api.house, want=1))
    await house.settle(api.house, job)


async def test_a_task_is_submitted_by_name_or_route_and_waited_for(api: ApiUnderTest, ada: Client) -> None:
    by_name = await ada.submit("test.note", {"text": "x"}, priority=7)
    by_route = await ada.submit("test/note", {"text": "x"})
    waiting = asyncio.create_task(ada.wait(by_name.task_id))
    await run_one(api)

    ended = await waiting

    assert (by_name.priority, by_route.status) == (7, Status.PENDING)
    assert (ended.status, ended.result, ended.progress) == (Status.COMPLETED, {"text": "done"}, 100)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_submit_whose_connection_is_lost_submits_one_task(
    api: ApiUnderTest, ada: Client, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    real, calls = ada._ask, 0

    async def lose(method: str, path: str, options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 3:
            if arrives:
                await real(method, path, options)
            raise aiohttp.ServerDisconnectedError
        return await real(method, path, options)

    monkeypatch.setattr(ada, "_ask", lose)

    task = await ada.submit("test.note")
    batch = await ada.submit_batch([{"task_name": "test.note", "params": {}}] * 3)

    assert calls == 4
    assert (await api.house.reader.count(JobFilter()), len(batch)) == (4, 3)
    assert (await api.house.reader.get(task.task_id)) is not None


async def test_what_is_not_safe_to_repeat_is_not_repeated(ada: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def lose(*_: object) -> Any:
        nonlocal calls
        calls += 1
        raise aiohttp.ServerDisconnectedError

    monkeypatch.setattr(ada, "_ask", lose)

    with pytest.raises(NoAnswer):
        await ada.retry("any")

    assert calls == 1


def has_heard(seen: list[StreamEvent], percent: float) -> bool:
    return seen[-1].data["progress"] == percent


async def test_a_follower_that_is_cut_again_and_again_sees_every_event_once(api: ApiUnderTest, ada: Client) -> None:
    job = await house.start_one(api.house)
    seen: list[StreamEvent] = []

    async def follow() -> None:
        async for event in ada.follow(job.id):
            seen.append(event)  # noqa: PERF401  # looked at while it grows

    following = asyncio.create_task(follow())
    await eventually(lambda: seen)
    for step in range(1, 6):
        api.house.outbox.post(progress_of(job.id, step * 10.0))
        await eventually(partial(has_heard, seen, step * 10.0))
        await api.app[LINKS].close_all()
    await house.settle(api.house, job)
    await following

    assert [event.type for event in seen] == ["task.snapshot", *["task.progress"] * 5, "task.completed"]
    assert seen[-1].task is not None
    assert seen[-1].task.result == {"text": "done"}


async def test_all_of_a_callers_tasks_are_followed(api: ApiUnderTest, ada: Client) -> None:
    events = ada.follow_all(type="task.completed")
    opened = await anext(events)
    task = await ada.submit("test.note")
    await run_one(api)

    event = await anext(events)

    assert (opened.type, opened.task) == ("stream.opened", None)
    assert event.task is not None
    assert (event.type, event.task.task_id) == ("task.completed", task.task_id)


async def test_lists_are_walked_to_their_end(ada: Client) -> None:
    ids = await ada.submit_batch([{"task_name": "test.note", "params": {}} for _ in range(5)])

    found = [task.task_id async for task in ada.tasks(limit=2, status="pending")]

    assert sorted(found) == sorted(ids)
    assert len(found) == len(set(found))


async def test_a_task_is_cancelled_and_run_again(ada: Client) -> None:
    task = await ada.submit("test.note")

    status = await ada.cancel(task.task_id)
    again = await ada.retry(task.task_id)

    assert (status, again.retried_from) == (Status.CANCELLED, task.task_id)
    with pytest.raises(InConflict):
        await ada.cancel(task.task_id)


async def test_records_are_stored(api: ApiUnderTest) -> None:
    record = {"entry_id": "a-1", "event_type": "x", "action": "y", "timestamp": "2026-01-01T00:00:00Z"}
    async with Client(url_of(api), ADMIN_KEY) as admin:
        with pytest.raises(NotAccepted) as refused:
            await admin.store_records("ari-snapshots", [{"wrong": 1}])
        stored = await admin.store_records("audit-entries", [record])

    assert stored == 1
    assert any(error.pointer.startswith("/0") for error in refused.value.errors)


async def test_a_refusal_is_raised_by_its_kind_in_the_words_of_the_service(api: ApiUnderTest, ada: Client) -> None:
    with pytest.raises(NotAccepted) as unknown:
        await ada.submit("test.nothing")
    with pytest.raises(NotAccepted) as wrong:
        await ada.submit("test.note", {"text": 1})
    with pytest.raises(NotAllowed):
        await ada.submit("test.sweep")
    with pytest.raises(NotThere):
        await ada.get("none")
    with pytest.raises(NotThere):
        await ada.wait("none")
    async with Client(url_of(api), "wrong") as nobody:
        with pytest.raises(NotAuthenticated):
            await nobody.page()
        with pytest.raises(NotAuthenticated):
            await anext(nobody.follow_all())
    with pytest.raises(Refused) as handshake:
        await anext(ada.follow_all(colour="red"))

    assert (unknown.value.problem_code, unknown.value.http_status) == ("unknown_task", 400)
    assert [error.pointer for error in wrong.value.errors] == ["/params/text"]
    assert wrong.value.request_id
    assert handshake.value.http_status == 422


async def test_the_command_line_submits_follows_and_lists(api: ApiUnderTest) -> None:
    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "app", "tasks", *arguments]
        place = os.environ | {"JOBS_URL": url_of(api), "JOBS_TOKEN": ADA_KEY, "COLUMNS": "80", "TERM": "dumb"}
        return await asyncio.to_thread(
            subprocess.run, argv, cwd=ROOT, env=place, capture_output=True, text=True, timeout=50, check=False
        )

    submitting = asyncio.create_task(run("submit", "test.note", "--param", "text=hi", "--follow"))
    (job,) = await eventually(lambda: house.start(api.house), within=30)
    await house.settle(api.house, job)
    submitted, listed, cancelled = [await submitting, await run("list"), await run("cancel", job.id)]

    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stdout.splitlines()[0] == job.id
    assert '"text": "done"' in submitted.stdout
    assert "task.completed" in submitted.stderr
    assert job.id in listed.stdout
    assert (cancelled.returncode, "409" in cancelled.stderr) == (2, True)
