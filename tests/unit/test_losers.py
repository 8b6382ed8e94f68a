"""What becomes of a claim that started nothing: when a job is a suspect, and when it is offered again."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.adoption import reuse
from app.clock import to_ms
from app.history.writer import ALONE_AT, MAX_INTERRUPTIONS
from app.jobs.status import Status
from app.losers import _is_suspect, _next_try_at
from app.queue.client import Claim
from app.queue.wire import Body

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CLAIM = Claim(id="a-job", queue_key="", token="ours", dead="dead", is_aborted=False)


def job(status: Status = Status.PENDING, **changes: Any) -> Any:
    plain = {"status": status, "claim": None, "interruptions": ALONE_AT, "due_at": NOW, "expires_at": None}
    return SimpleNamespace(**plain | changes)


def running(claim: str, interruptions: int) -> Any:
    return job(Status.RUNNING, claim=claim, interruptions=interruptions)


@pytest.mark.parametrize(
    "suspect", [job(), job(expires_at=NOW + MINUTE), running("dead", ALONE_AT - 1), running("dead", ALONE_AT)]
)
def test_what_was_interrupted_twice_and_may_start_now_is_a_suspect(suspect: Any) -> None:
    assert _is_suspect(suspect, CLAIM, NOW)


@pytest.mark.parametrize(
    "other",
    [
        job(interruptions=ALONE_AT - 1),
        job(interruptions=MAX_INTERRUPTIONS),
        job(due_at=NOW + MINUTE),
        job(expires_at=NOW),
        running("dead", ALONE_AT - 2),
        running("another", ALONE_AT),
        job(Status.COMPLETED),
    ],
)
def test_what_may_not_start_now_or_not_only_alone_is_no_suspect(other: Any) -> None:
    assert not _is_suspect(other, CLAIM, NOW)


def test_a_suspect_without_a_place_is_offered_again_a_moment_later_and_all_else_at_its_time() -> None:
    assert _next_try_at(job(due_at=NOW - MINUTE), CLAIM, NOW) > NOW
    assert _next_try_at(job(due_at=NOW + MINUTE), CLAIM, NOW) == NOW + MINUTE


@pytest.mark.parametrize(("after_s", "is_refused"), [(-60, False), (0.9, False), (1.1, True), (3600, True)])
def test_a_body_is_that_of_another_job_if_it_was_sent_after_the_end_by_a_clock_a_little_ahead(
    after_s: float, is_refused: bool
) -> None:
    ended = SimpleNamespace(id="a-job", created_at=NOW - MINUTE, completed_at=NOW)
    sent_at = NOW + timedelta(seconds=after_s)
    body = Body(kind="test.note", args=[], kwargs={}, enqueued_ms=to_ms(sent_at), is_ours=False)

    assert (reuse(cast(Any, ended), body) is not None) is is_refused
