"""Every change of a row is a guarded compare-and-set: who wins, who loses, and what is left alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import new_id
from app.database import Database
from app.errors import Unavailable
from app.history.reader import JobFilter, Reader
from app.history.receipts import Receipt, Repeated
from app.history.rows import NewJob
from app.history.writer import StartRequest, Writer
from app.jobs.status import FINAL, Status
from tests.support.house import OOPS, WORKER, ending, new_job
from tests.support.writing import LATER, NOW, SURROGATE, end, outcomes, row, start, start_one


@pytest.fixture
def reader(database: Database) -> Reader:
    return Reader(database)


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    yield writer
    await writer.close()


# --- accept ------------------------------------------------------------------------------------


async def test_an_accepted_job_is_pending_with_all_its_facts(writer: Writer, reader: Reader) -> None:
    job = new_job(
        user_id="eve",
        params={"text": "Grüße 😀 \0", "deep": [1, 2.5, None]},
        scheduled_for=NOW,
        expires_at=LATER,
        retried_from="another",
        schedule="hourly",
        tick_at=NOW,
    )

    await writer.accept([job])

    stored = await row(reader, job)
    assert NewJob(**{name: getattr(stored, name) for name in NewJob.__dataclass_fields__}) == job
    assert (stored.status, stored.attempts, stored.claim, stored.error) == (Status.PENDING, 0, None, None)


async def test_an_accept_can_be_sent_again(writer: Writer, reader: Reader) -> None:
    job = new_job()
    await writer.accept([job])
    await start(writer, job)

    await writer.accept([replace(job, priority=9), new_job()])

    assert await reader.count(JobFilter()) == 2
    assert (await row(reader, job)).status is Status.RUNNING
    assert (await row(reader, job)).priority == 5


async def test_an_accept_is_all_or_nothing(writer: Writer, reader: Reader) -> None:
    jobs = [new_job() for _ in range(1500)]

    with pytest.raises(sa.exc.IntegrityError):
        await writer.accept([*jobs, new_job(priority=11)])

    assert await reader.count(JobFilter()) == 0


async def test_nothing_to_accept_is_no_error(writer: Writer, reader: Reader) -> None:
    await writer.accept([])

    assert await reader.count(JobFilter()) == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"user_id": SURROGATE},
        {"params": {"text": SURROGATE}},
        {"priority": 11},
        {"max_retries": 2**70},
        {"schedule": "hourly", "tick_at": NOW},
    ],
    ids=["surrogate", "surrogate-inside", "refused-by-a-check", "beyond-64-bits", "a-tick-that-exists"],
)
async def test_a_bad_row_never_takes_its_neighbours_along(writer: Writer, reader: Reader, bad: dict[str, Any]) -> None:
    await writer.accept([new_job(schedule="hourly", tick_at=NOW)])
    groups = [[new_job()], [new_job(**bad)], [new_job(), new_job()]]

    answers = await asyncio.gather(*(writer.accept(group) for group in groups), return_exceptions=True)

    assert [answer is None for answer in answers] == [True, False, True]
    assert not isinstance(answers[1], Unavailable)
    assert await reader.count(JobFilter()) == 3


@pytest.mark.databases("postgresql")
async def test_a_character_that_postgresql_has_not_fails_its_own_row_alone(writer: Writer, reader: Reader) -> None:
    groups = [[new_job()], [new_job(user_id="nul\0")], [new_job()]]

    answers = await asyncio.gather(*(writer.accept(group) for group in groups), return_exceptions=True)

    assert [answer is None for answer in answers] == [True, False, True]
    assert await reader.count(JobFilter()) == 2


# --- ticks -------------------------------------------------------------------------------------


async def test_a_tick_is_accepted_once_however_many_try(writer: Writer, reader: Reader) -> None:
    ticks = [new_job(schedule="hourly", tick_at=NOW) for _ in range(8)]

    wins = await asyncio.gather(*(writer.accept_tick(tick) for tick in ticks))

    assert sorted(wins) == [False] * 7 + [True]
    assert await reader.count(JobFilter(origin="cron")) == 1


async def test_another_tick_and_another_schedule_are_accepted(writer: Writer) -> None:
    await writer.accept_tick(new_job(schedule="hourly", tick_at=NOW))

    assert await writer.accept_tick(new_job(schedule="hourly", tick_at=LATER))
    assert await writer.accept_tick(new_job(schedule="daily", tick_at=NOW))


# --- start -------------------------------------------------------------------------------------


async def test_a_pending_job_that_is_due_starts(writer: Writer, reader: Reader) -> None:
    job = new_job(params={"text": "hello"}, user_id="eve", expires_at=LATER)
    await writer.accept([job])

    (started,) = await start(writer, job)

    assert (started.id, started.attempts, started.claim, started.started_at) == (job.id, 1, "mine", NOW)
    assert (started.params, started.user_id, started.due_at) == ({"text": "hello"}, "eve", job.due_at)
    stored = await row(reader, job)
    assert (stored.status, stored.attempts, stored.claim, stored.worker_id) == (Status.RUNNING, 1, "mine", WORKER)
    assert (stored.interruptions, stored.started_at) == (0, NOW)


async def test_a_job_starts_at_the_very_moment_it_is_due(writer: Writer) -> None:
    assert (await start_one(writer, due_at=NOW)).attempts == 1


async def test_a_job_that_is_not_yet_due_does_not_start(writer: Writer, reader: Reader) -> None:
    job = new_job(due_at=NOW + timedelta(milliseconds=1))
    await writer.accept([job])

    assert await start(writer, job) == []
    assert (await row(reader, job)).status is Status.PENDING


async def test_a_job_that_has_expired_does_not_start(writer: Writer) -> None:
    job = new_job(expires_at=NOW)
    await writer.accept([job])

    assert await start(writer, job) == []


@pytest.mark.parametrize(
    ("claim", "dead"),
    [("mine", None), ("mine", "a-former-claim"), ("a-former-claim", None)],
    ids=["new", "dead", "own"],
)
async def test_an_ended_job_never_starts_again(writer: Writer, reader: Reader, claim: str, dead: str | None) -> None:
    ended = [await end(writer, status) for status in sorted(FINAL)]
    before = await reader.get_many([job.id for job in ended])

    assert await start(writer, *ended, claim=claim, dead=dead) == []
    assert await reader.get_many([job.id for job in ended]) == before


async def test_a_job_without_a_row_does_not_start(writer: Writer) -> None:
    assert await start(writer, new_job()) == []


async def test_a_job_that_runs_under_another_claim_does_not_start(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)

    assert await start(writer, job, dead="a-third-claim") == []
    assert (await row(reader, job)).claim == "a-former-claim"
    assert await outcomes(reader, job) == [(1, "running")]


async def test_a_job_whose_claim_is_dead_starts_again_as_interrupted(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)

    (started,) = await start(writer, job, dead="a-former-claim")

    assert (started.attempts, started.interruptions, started.claim) == (2, 1, "mine")
    assert (await row(reader, job)).claim == "mine"
    first, second = await reader.attempts(await row(reader, job))
    assert (first.attempt, first.outcome, first.worker_id, first.ended_at) == (1, "interrupted", WORKER, NOW)
    assert first.error is not None
    assert first.error.code == "worker_lost"
    assert (second.attempt, second.outcome) == (2, "running")


async def test_a_job_that_ended_under_a_claim_that_died_later_was_not_interrupted(
    writer: Writer, reader: Reader
) -> None:
    job = await end(writer, Status.COMPLETED)

    await start(writer, job, dead="a-former-claim")

    assert await outcomes(reader, job) == [(1, "completed")]


async def test_a_request_that_comes_again_writes_nothing(writer: Writer, reader: Reader) -> None:
    receipt = Receipt(owner="ann", key="k", fingerprint="f", status=202, location=None, body="{}", created_at=NOW)

    answers = [await writer.accept_once([new_job()], receipt) for _ in range(2)]

    assert answers == [None, Repeated()]
    assert await reader.count(JobFilter()) == 1


async def test_a_suspect_that_is_not_started_in_company_was_not_interrupted_yet(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)
    (second,) = await start(writer, job, claim="second", dead="a-former-claim")
    late = StartRequest(id=job.id, claim="third", dead="second")

    assert await writer.start([late], worker_id=WORKER, now=NOW, in_company=True) == []

    assert await writer.settle(ending(second, Status.COMPLETED))  # its worker was slow, and not dead
    assert await outcomes(reader, job) == [(1, "interrupted"), (2, "completed")]


async def test_a_start_whose_reply_was_lost_wins_again_without_a_new_attempt(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)
    (first,) = await start(writer, job, dead="a-former-claim")

    (second,) = await start(writer, job, dead="a-former-claim")

    assert second == first
    assert await outcomes(reader, job) == [(1, "interrupted"), (2, "running")]


async def test_a_start_forgets_the_progress_of_the_attempt_before(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job, Status.PENDING, due_at=NOW, progress=50.0, progress_message="half", stage="one"))

    await start(writer, new_job(id=job.id), claim="next")

    stored = await row(reader, job)
    assert (stored.progress, stored.progress_message, stored.stage) == (0, None, None)


async def test_winners_come_in_the_order_asked(writer: Writer) -> None:
    jobs = [new_job() for _ in range(50)]
    await writer.accept(jobs)
    asked = [*jobs[::-2], new_job(), *jobs[::2]]

    started = await start(writer, *asked)

    known = {job.id for job in jobs}
    assert [job.id for job in started] == [job.id for job in asked if job.id in known]


# --- cancel, end, reprioritise -----------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING])
async def test_a_live_job_can_be_cancelled(writer: Writer, reader: Reader, status: Status) -> None:
    job = await end(writer, status)

    cancelled = await writer.cancel(job.id, include_running=True, now=LATER)

    assert cancelled == await row(reader, job)
    assert (cancelled.status, cancelled.completed_at) == (Status.CANCELLED, LATER)


async def test_a_running_job_is_spared_if_so_asked(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.RUNNING)

    assert await writer.cancel(job.id, include_running=False, now=NOW) is None
    assert (await row(reader, job)).status is Status.RUNNING


async def test_a_waiting_job_is_ended_with_its_error(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.PENDING)

    ended = await writer.end_pending(job.id, OOPS, now=LATER)

    assert ended == await row(reader, job)
    assert (ended.status, ended.error, ended.completed_at) == (Status.FAILED, OOPS, LATER)


async def test_a_waiting_job_changes_its_priority(writer: Writer, reader: Reader) -> None:
    job = await end(writer, Status.PENDING)

    changed = await writer.reprioritise(job.id, priority=9)

    assert changed == await row(reader, job)
    assert (changed.priority, changed.status) == (9, Status.PENDING)


CHANGES: list[Callable[[Writer, str], Any]] = [
    lambda writer, job_id: writer.cancel(job_id, include_running=True, now=LATER),
    lambda writer, job_id: writer.end_pending(job_id, OOPS, now=LATER),
    lambda writer, job_id: writer.reprioritise(job_id, priority=9),
]


@pytest.mark.parametrize("change", CHANGES, ids=["cancel", "end_pending", "reprioritise"])
async def test_nothing_changes_an_ended_job(
    writer: Writer, reader: Reader, change: Callable[[Writer, str], Any]
) -> None:
    ended = [await end(writer, status) for status in sorted(FINAL)]
    before = await reader.get_many([job.id for job in ended])

    assert [await change(writer, job.id) for job in ended] == [None, None, None]
    assert await reader.get_many([job.id for job in ended]) == before


@pytest.mark.parametrize("change", CHANGES[1:], ids=["end_pending", "reprioritise"])
async def test_what_is_for_waiting_jobs_spares_a_running_one(
    writer: Writer, reader: Reader, change: Callable[[Writer, str], Any]
) -> None:
    job = await end(writer, Status.RUNNING)
    before = await row(reader, job)

    assert await change(writer, job.id) is None
    assert await row(reader, job) == before


async def test_a_job_that_is_not_there_cannot_be_changed(writer: Writer) -> None:
    assert [await change(writer, new_id()) for change in CHANGES] == [None, None, None]
