"""Group commit: nobody waits for company, nobody pays for a neighbour."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy.exc import DataError, StatementError

from app.errors import InvalidInput, Unavailable
from app.group import GroupCommit
from tests.support.waiting import eventually


class Ledger:
    """Keeps the batches it gets; a batch stays under way until :attr:`gate` is open."""

    def __init__(self, refuse: Callable[[], Exception] | None = None) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = asyncio.Event()
        self.refuse = refuse

    async def flush(self, items: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(items))
        self.under_way.set()
        await self.gate.wait()
        if self.refuse is not None and "bad" in items:
            raise self.refuse()
        return [item.upper() for item in items]


async def send_all(commit: GroupCommit[str, str], items: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(commit(item)) for item in items.split()]
    await asyncio.sleep(0)
    return tasks


async def test_the_first_item_goes_at_once() -> None:
    ledger = Ledger()

    answer = await GroupCommit(ledger.flush)("a")

    assert (answer, ledger.batches) == ("A", [["a"]])


async def test_what_arrives_while_a_batch_is_under_way_goes_together() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    commit = GroupCommit(ledger.flush)
    first = await send_all(commit, "a")
    await ledger.under_way.wait()
    rest = await send_all(commit, "b c d")

    ledger.gate.set()
    answers = await asyncio.gather(*first, *rest)

    assert ledger.batches == [["a"], ["b", "c", "d"]]
    assert answers == ["A", "B", "C", "D"]


async def test_no_batch_is_larger_than_the_limit() -> None:
    ledger = Ledger()
    commit = GroupCommit(ledger.flush, limit=2)

    answers = await asyncio.gather(*(await send_all(commit, "a b c d e")))

    assert [len(batch) for batch in ledger.batches] == [2, 2, 1]
    assert answers == ["A", "B", "C", "D", "E"]


async def test_an_item_after_a_pause_goes_at_once_again() -> None:
    ledger = Ledger()
    commit = GroupCommit(ledger.flush)
    await commit("a")

    assert await commit("b") == "B"
    assert ledger.batches == [["a"], ["b"]]


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: DataError("INSERT", None, ValueError("bad")),
        lambda: StatementError("bad", "INSERT", None, ValueError("bad")),
        lambda: InvalidInput([], "bad"),
        lambda: TypeError("not JSON"),
        lambda: OverflowError("too large"),
        lambda: UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"),
    ],
)
async def test_one_bad_item_never_takes_its_neighbours_along(refuse: Callable[[], Exception]) -> None:
    commit = GroupCommit(Ledger(refuse).flush)

    answers = await asyncio.gather(*(await send_all(commit, "a b bad c d")), return_exceptions=True)

    assert [type(answer) for answer in answers] == [str, str, type(refuse()), str, str]


async def test_two_bad_items_are_both_found() -> None:
    commit = GroupCommit(Ledger(lambda: InvalidInput([])).flush)

    answers = await asyncio.gather(*(await send_all(commit, "bad a bad b")), return_exceptions=True)

    assert [isinstance(answer, InvalidInput) for answer in answers] == [True, False, True, False]


@pytest.mark.parametrize("outage", [Unavailable, ConnectionError, TimeoutError])
async def test_an_outage_is_told_to_everybody_and_not_tried_again_item_by_item(outage: type[Exception]) -> None:
    ledger = Ledger(outage)
    commit = GroupCommit(ledger.flush)

    answers = await asyncio.gather(*(await send_all(commit, "a bad b")), return_exceptions=True)

    assert [type(answer) for answer in answers] == [outage] * 3
    assert len(ledger.batches) == 1


async def test_after_an_outage_the_next_item_goes_as_ever() -> None:
    ledger = Ledger(Unavailable)
    commit = GroupCommit(ledger.flush)
    with pytest.raises(Unavailable):
        await commit("bad")

    assert await commit("a") == "A"


async def test_a_cancelled_caller_does_not_take_the_batch_along() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    commit = GroupCommit(ledger.flush)
    first, second = await send_all(commit, "a b")
    await ledger.under_way.wait()

    first.cancel()
    ledger.gate.set()

    assert await second == "B"
    assert first.cancelled() or await asyncio.wait([first])
    assert ledger.batches == [["a", "b"]]


async def test_close_waits_for_what_is_under_way() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    commit = GroupCommit(ledger.flush)
    (sent,) = await send_all(commit, "a")
    closing = asyncio.create_task(commit.close())
    await ledger.under_way.wait()
    assert not closing.done()

    ledger.gate.set()
    await closing

    assert await sent == "A"


async def test_closing_what_never_worked_is_no_error() -> None:
    await GroupCommit(Ledger().flush).close()


async def test_what_follows_a_batch_is_told_once_of_what_was_not_refused_and_before_its_callers() -> None:
    told: list[list[str]] = []
    answered: list[str] = []

    async def follow(items: Sequence[str]) -> None:
        assert not answered
        told.append(list(items))

    ledger = Ledger(lambda: InvalidInput([]))
    ledger.gate.clear()
    commit = GroupCommit(ledger.flush, follow=follow)

    async def call(item: str) -> None:
        await commit(item)
        answered.append(item)

    callers = [asyncio.create_task(call(item)) for item in ("a", "bad", "b")]
    await asyncio.sleep(0)
    ledger.gate.set()
    refused = await asyncio.gather(*callers, return_exceptions=True)

    assert (told, sorted(answered)) == ([["a", "b"]], ["a", "b"])
    assert [type(answer) for answer in refused] == [type(None), InvalidInput, type(None)]


async def test_the_next_batch_does_not_wait_for_what_follows_the_first() -> None:
    gate, ledger = asyncio.Event(), Ledger()

    async def follow(_: Sequence[str]) -> None:
        await gate.wait()

    commit = GroupCommit(ledger.flush, follow=follow)
    first = await send_all(commit, "a")
    second = await send_all(commit, "b")
    await eventually(lambda: ledger.batches == [["a"], ["b"]])
    assert not any(task.done() for task in (*first, *second))

    gate.set()

    assert await asyncio.gather(*first, *second) == ["A", "B"]


async def test_a_caller_is_answered_although_what_follows_fails() -> None:
    async def follow(_: Sequence[str]) -> None:
        raise Unavailable

    assert await GroupCommit(Ledger().flush, follow=follow)("a") == "A"
