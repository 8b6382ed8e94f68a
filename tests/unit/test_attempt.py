"""One attempt as its worker stops it: the first reason counts, and what has ended is left alone."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from app.history.writer import Settlement, Started
from tests.support.workplace import Anything, Something, trial_type
from workers.attempt import Attempt, StopReason
from workers.context import Context
from workers.room import Room

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
JOB = Started(
    id="a-job",
    kind="trial.job",
    queue="north",
    priority=5,
    params={},
    user_id=None,
    submitted_by="ann",
    attempts=1,
    failures=0,
    interruptions=0,
    max_retries=2,
    created_at=NOW,
    due_at=NOW,
    claim="a-claim",
    started_at=NOW,
)


async def wait(ctx: Context, params: Anything) -> Something:
    await asyncio.sleep(float(params.value or 0))  # type: ignore[arg-type]  # a number, by the tests below
    return Something()


def begin(ended: list[Settlement | None], seconds: float) -> tuple[Attempt, asyncio.Task[None]]:
    house: Any = SimpleNamespace(records=None, outbox=None)
    job = JOB._replace(params={"value": seconds})
    attempt = Attempt(job, trial_type(), wait, house, room=Room(1), on_ended=lambda _, end: ended.append(end))
    return attempt, asyncio.create_task(attempt.run())


async def test_an_attempt_whose_end_is_being_written_is_left_alone() -> None:
    ended = list[Settlement | None]()
    attempt, running = begin(ended, 0)
    await running

    attempt.stop(StopReason.TIMEOUT)

    assert (attempt.stop_reason, attempt.is_stubborn) == (None, False)
    assert [end and end.outcome for end in ended] == ["completed"]


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.LOST])
async def test_an_attempt_that_is_not_its_own_any_more_writes_nothing_and_no_later_reason_changes_that(
    reason: StopReason,
) -> None:
    ended = list[Settlement | None]()
    attempt, running = begin(ended, 60)
    await asyncio.sleep(0)

    attempt.stop(reason)
    attempt.stop(StopReason.TIMEOUT)

    await running
    assert ended == [None]
