"""What the intake does with claims that did not start."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import Unavailable
from app.history.writer import Started
from app.queue.client import Claim, Claims
from workers.intake import Intake

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Keeper:
    """Stands in for the keeper of leases."""

    def __init__(self) -> None:
        self.held = set[str]()
        self.is_late = False

    def has_run_out(self, *, asked_at: float) -> bool:
        return self.is_late

    def hold_all(self, claims: Sequence[Claim], *, asked_at: float) -> None:
        self.held |= {claim.id for claim in claims}

    def drop(self, job_id: str, _token: str) -> None:
        self.held.discard(job_id)


class House:
    """Stands in for the stores: ``suspect`` is set aside, ``lost`` does not start, unless a store is ``out``.

    A claim waits for ``may_claim``, a start for ``may_start``, its end for ``may_let_go``; all are open at first.
    """

    def __init__(self, *, out: Exception | None = None) -> None:
        self.queue = self.lifecycle = self
        self._out = out
        self.may_claim, self.may_start, self.may_let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for gate in (self.may_claim, self.may_start, self.may_let_go):
            gate.set()
        self.given_back: list[str] = []

    async def give_back(self, claims: Sequence[Claim]) -> None:
        self.given_back += [claim.id for claim in claims]

    async def claim(self, _queues: object, *, want: int, token: str, search: bool) -> Claims:
        await self.may_claim.wait()
        claims = [Claim(id=one, queue_key="", token=token, dead=None, is_aborted=False) for one in ("lost", "suspect")]
        return Claims(now=NOW, asked_at=0.0, claims=claims, next_due=None, has_more=False)

    async def start(
        self,
        _claims: object,
        *,
        worker_id: str,
        take_aside: object,
        on_decided: Callable[[Sequence[Started] | None], None],
    ) -> list[Started]:
        await self.may_start.wait()
        if isinstance(self._out, Unavailable):
            on_decided(None)
            await self.may_let_go.wait()
        if self._out is not None:
            raise self._out
        on_decided(())
        await self.may_let_go.wait()
        return []


async def without_my_own(claims: Claims, _queue: object) -> Claims:
    return claims


def open_intake(house: Any, keeper: Any) -> Intake:
    suspects: Any = SimpleNamespace(held={"suspect"}, take=None)
    doubts: Any = SimpleNamespace(without_my_own=without_my_own)
    keep: Any = asyncio.create_task
    return Intake(
        house,
        worker_id="a-worker",
        keeper=keeper,
        suspects=suspects,
        doubts=doubts,
        keep=keep,
        launch=lambda _started: None,
    )


async def test_the_lease_of_what_did_not_start_is_renewed_no_more_but_that_of_a_suspect_is() -> None:
    keeper = Keeper()
    intake = open_intake(House(), keeper)

    await intake.take(["north"], want=2, search=False)
    assert intake._task is not None
    await intake._task

    assert keeper.held == {"suspect"}


async def test_what_a_start_lets_go_of_may_be_claimed_again_at_once() -> None:
    house = House()
    house.may_let_go.clear()
    intake = open_intake(house, Keeper())

    await intake.take(["north"], want=2, search=False)
    await asyncio.sleep(0.01)
    assert intake.pending == {"lost": None, "suspect": None}  # the first start has decided, and lets go of both
    house.may_start.clear()
    await intake.take(["north"], want=2, search=False)
    house.may_let_go.set()
    await asyncio.sleep(0.01)
    assert intake.pending == dict.fromkeys(("lost", "suspect"), "a-worker:2")  # the first start is over
    house.may_start.set()
    assert intake._task is not None
    await intake._task

    assert intake.pending == {}


async def test_what_was_claimed_longer_ago_than_a_lease_is_not_started() -> None:
    keeper, house = Keeper(), House()
    keeper.is_late = True
    intake = open_intake(house, keeper)

    await intake.take(["north"], want=2, search=False)

    assert (intake.pending, intake._task, keeper.held) == ({}, None, set())
    assert house.given_back == ["lost", "suspect"]


@pytest.mark.parametrize("error", [Unavailable(), ConnectionError()])
async def test_while_the_database_is_out_nothing_more_is_claimed_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("workers.intake.OUTAGE_PAUSE_S", 0.05)
    house = House(out=error)
    house.may_let_go.clear()
    intake = open_intake(house, Keeper())

    await intake.take(["north"], want=2, search=False)
    await asyncio.sleep(0.01)

    assert not intake.is_clear.is_set()
    await intake.take(["north"], want=2, search=False)  # asked for before
    assert house.given_back == ["lost", "suspect"]
    house.may_let_go.set()
    async with asyncio.timeout(5):
        await intake.is_clear.wait()


async def test_what_is_being_claimed_starts_before_what_has_ended_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.intake._HEAD_START_S", 60)
    house = House()
    house.may_claim.clear()
    house.may_start.clear()
    intake = open_intake(house, Keeper())
    intake.expect()
    settling = asyncio.create_task(intake.starts_are_made())

    assert not await _ends(settling)
    claiming = asyncio.create_task(intake.take(["north"], want=2, search=False))
    assert not await _ends(settling)
    house.may_claim.set()
    await claiming
    assert not await _ends(settling)
    house.may_start.set()
    assert await _ends(settling)


async def _ends(task: asyncio.Task[None]) -> bool:
    for _ in range(20):
        await asyncio.sleep(0)
    return task.done()


@pytest.mark.parametrize("slow", ["may_claim", "may_start"])
async def test_what_has_ended_waits_for_no_slow_store(slow: str) -> None:
    house = House()
    getattr(house, slow).clear()
    intake = open_intake(house, Keeper())
    claiming = asyncio.create_task(intake.take(["north"], want=2, search=False))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await intake.starts_are_made()

    getattr(house, slow).set()
    await claiming
    assert intake._task is not None
    await intake._task


async def test_what_has_ended_waits_for_no_claim_where_none_is_to_come() -> None:
    settling = asyncio.create_task(open_intake(House(), Keeper()).starts_are_made())

    assert await _ends(settling)
