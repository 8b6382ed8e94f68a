"""Doubtful leases: whose rows are asked, one question at a time, and what is stopped without an answer."""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any

import pytest

from app.errors import Unavailable
from tests.support.waiting import eventually
from workers.attempt import StopReason
from workers.doubt import Doubts
from workers.lease import Held


class Rows:
    """Stands in for the reader: it answers once the gate is open, or not at all."""

    def __init__(self, *, is_out: bool = False) -> None:
        self.asked = list[dict[str, str]]()
        self.gate = asyncio.Event()
        self._is_out = is_out

    async def running_under(self, claims: dict[str, str]) -> set[str]:
        self.asked.append(claims)
        await self.gate.wait()
        if self._is_out:
            raise Unavailable
        return set()


class Stopped(dict[str, StopReason]):
    """What was stopped, and why."""

    def stop(self, ids: Iterable[str], reason: StopReason) -> None:
        self.update(dict.fromkeys(ids, reason))


@pytest.fixture
def stopped() -> Stopped:
    return Stopped()


def doubts(rows: Rows, stopped: Stopped, claims: dict[str, str] | None = None) -> Doubts:
    reader: Any = rows
    claims = dict.fromkeys("ab", "now") if claims is None else claims
    return Doubts(claims.get, reader, limit_s=5, stop=stopped.stop)


def held(job_id: str, token: str = "now", *, for_s: float = -1) -> Held:
    return Held(job_id=job_id, queue_key="", token=token, good_until=monotonic() + for_s)


async def test_a_doubt_about_a_claim_that_is_over_asks_and_stops_nothing(stopped: Stopped) -> None:
    rows = Rows()

    await doubts(rows, stopped).settle([held("a", "before"), held("gone")])

    assert (rows.asked, stopped) == ([], {})


async def test_while_sql_is_out_only_a_job_whose_lease_is_over_is_stopped(stopped: Stopped) -> None:
    rows = Rows(is_out=True)
    rows.gate.set()

    await doubts(rows, stopped).settle([held("a"), held("b", for_s=60)])

    assert stopped == {"a": StopReason.CUT_OFF}


async def test_one_question_is_asked_at_a_time(stopped: Stopped) -> None:
    rows = Rows()
    asking = doubts(rows, stopped)

    for _ in range(3):
        asking.ask([held("a")])
        await asyncio.sleep(0)
    rows.gate.set()
    assert asking._question is not None
    await asking._question

    assert rows.asked == [{"a": "now"}]
    assert stopped == {"a": StopReason.LOST}


@pytest.mark.parametrize("is_out", [False, True])
async def test_what_runs_under_another_claim_when_the_answer_comes_is_not_stopped(
    stopped: Stopped, is_out: bool
) -> None:
    rows, claims = Rows(is_out=is_out), {"a": "now", "b": "now"}
    asking = asyncio.create_task(doubts(rows, stopped, claims).settle([held("a"), held("b")]))
    await eventually(lambda: bool(rows.asked))

    claims["a"] = "next"
    rows.gate.set()
    await asking

    assert set(stopped) == {"b"}
