"""Only the attempt and the claim that run write how they ended and how far they are; who comes late changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from app.clock import new_id
from app.database import Database
from app.errors import Unavailable
from app.history.reader import Reader
from app.history.writer import Settlement, Started, Writer
from app.jobs.status import Status
from tests.support.house import OOPS, ending, new_job
from tests.support.writing import LATER, NOW, SURROGATE, outcomes, row, start, start_one


@pytest.fixture
def reader(database: Database) -> Reader:
    return Reader(database)


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    yield writer
    await writer.close()


# --- settle ------------------------------------------------------------------------------------


async def test_a_completed_job_bears_its_result(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    assert await writer.settle(ending(job, ended_at=LATER, progress=100.0, progress_message="done", stage="end"))

    stored = await row(reader, job)
    assert (stored.status, stored.result, stored.completed_at) == (Status.COMPLETED, {"text": "done"}, LATER)
    assert (stored.progress, stored.progress_message, stored.stage) == (100.0, "done", "end")
    assert (stored.failures, stored.releases, stored.error) == (0, 0, None)


async def test_a_job_that_completes_at_once_needs_no_attempt_row(
    writer: Writer, reader: Reader, database: Database
) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job))

    async with database.read() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM task_attempts"))).scalar_one() == 0
    assert await outcomes(reader, job) == [(1, "completed")]


async def test_a_failed_job_bears_its_error_and_so_does_its_attempt(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job, Status.FAILED))

    stored = await row(reader, job)
    assert (stored.status, stored.error, stored.failures) == (Status.FAILED, OOPS, 1)
    (attempt,) = await reader.attempts(stored)
    assert (attempt.outcome, attempt.error) == ("failed", replace(OOPS, is_retryable=False))


async def test_a_retry_waits_for_its_due_time(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job, Status.PENDING, due_at=LATER))

    stored = await row(reader, job)
    assert (stored.status, stored.due_at, stored.completed_at) == (Status.PENDING, LATER, None)
    assert (stored.failures, stored.releases, stored.attempts) == (1, 0, 1)
    assert await outcomes(reader, job) == [(1, "failed")]


async def test_a_released_job_burns_no_failure_and_keeps_its_due_time(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)

    await writer.settle(ending(job, Status.PENDING, outcome="released", error=None, due_at=None))

    stored = await row(reader, job)
    assert (stored.status, stored.failures, stored.releases, stored.due_at) == (Status.PENDING, 0, 1, job.due_at)
    assert await outcomes(reader, job) == [(1, "released")]


async def test_attempts_are_told_from_the_first_to_the_last(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job, Status.PENDING, due_at=NOW))
    (second,) = await start(writer, new_job(id=job.id), claim="second")
    (third,) = await start(writer, new_job(id=job.id), claim="third", dead="second")

    await writer.settle(ending(third))

    assert (second.attempts, third.attempts) == (2, 3)
    assert await outcomes(reader, job) == [(1, "failed"), (2, "interrupted"), (3, "completed")]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.PENDING])
async def test_only_the_attempt_and_the_claim_that_run_can_settle(
    writer: Writer, reader: Reader, status: Status
) -> None:
    job = await start_one(writer)
    before = await row(reader, job)
    foreign: list[dict[str, Any]] = [{"attempts": 2}, {"attempts": 0}, {"claim": "stale"}, {"id": new_id()}]

    wins = await asyncio.gather(*(writer.settle(ending(job, status)._replace(**changes)) for changes in foreign))

    assert wins == [False] * 4
    assert await row(reader, job) == before
    assert await outcomes(reader, job) == [(1, "running")]


async def test_a_stale_worker_cannot_settle_a_rescued_job(writer: Writer, reader: Reader) -> None:
    stale = await start_one(writer, claim="stale")
    (rescuer,) = await start(writer, new_job(id=stale.id), claim="rescuer", dead="stale")

    assert not await writer.settle(ending(stale, Status.FAILED))
    assert await writer.settle(ending(rescuer))
    assert await outcomes(reader, stale) == [(1, "interrupted"), (2, "completed")]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.PENDING])
async def test_a_settle_whose_reply_was_lost_counts_as_won_and_changes_nothing(
    writer: Writer, reader: Reader, status: Status
) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job, status))
    before = await row(reader, job)

    assert await writer.settle(ending(job, status))
    assert await row(reader, job) == before


@pytest.mark.parametrize("foreign", [{"attempts": 2}, {"claim": "stale"}, {"status": Status.FAILED}], ids=repr)
async def test_of_an_ended_job_only_the_settle_that_ended_it_counts_as_won(
    writer: Writer, foreign: dict[str, Any]
) -> None:
    job = await start_one(writer)
    await writer.settle(ending(job))

    assert not await writer.settle(ending(job)._replace(**foreign))


async def test_a_settle_after_a_cancel_loses(writer: Writer, reader: Reader) -> None:
    job = await start_one(writer)
    await writer.cancel(job.id, include_running=True, now=NOW)

    assert not await writer.settle(ending(job))
    assert (await row(reader, job)).status is Status.CANCELLED


async def test_each_settle_of_a_batch_gets_its_own_answer(writer: Writer) -> None:
    jobs = [await start_one(writer, claim=f"claim-{at}") for at in range(5)]
    settlements = [ending(job, claim="stale") if at % 2 else ending(job, Status.FAILED) for at, job in enumerate(jobs)]

    assert await asyncio.gather(*map(writer.settle, settlements)) == [True, False, True, False, True]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: ending(job, stage=SURROGATE),
        lambda job: ending(job, Status.FAILED, error=replace(OOPS, message=SURROGATE)),
        lambda job: ending(job, attempts=2**70),
    ],
    ids=["surrogate", "surrogate-in-an-error", "beyond-64-bits"],
)
async def test_a_bad_settlement_never_takes_its_neighbours_along(
    writer: Writer, reader: Reader, spoil: Callable[[Started], Settlement]
) -> None:
    jobs = [await start_one(writer, claim=f"claim-{at}") for at in range(4)]
    settlements = [spoil(job) if at == 2 else ending(job) for at, job in enumerate(jobs)]

    answers = await asyncio.gather(*map(writer.settle, settlements), return_exceptions=True)

    assert [answer is True for answer in answers] == [True, True, False, True]
    assert not isinstance(answers[2], Unavailable)
    assert [(await row(reader, job)).status for job in jobs].count(Status.COMPLETED) == 3


# --- checkpoints -------------------------------------------------------------------------------


async def test_a_checkpoint_after_a_cancel_is_not_stored(writer: Writer, reader: Reader) -> None:
    started = await start_one(writer)
    await writer.cancel(started.id, include_running=True, now=NOW)

    assert not await writer.checkpoint(started, {"at": 1}, now=NOW)
    assert await reader.checkpoint(started.id) is None


async def test_a_checkpoint_of_another_claim_is_not_stored(writer: Writer, reader: Reader) -> None:
    started = await start_one(writer)

    assert not await writer.checkpoint(started._replace(claim="another"), {"at": 1}, now=NOW)
    assert await reader.checkpoint(started.id) is None
