"""Closing attempts: in batches, once each, and nothing that goes wrong keeps a slot."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from workers.closer import Closer
from workers.running import Running


class Ledger:
    """Stands in for the lifecycle: a batch stays under way until the gate is open."""

    def __init__(self, answer: Callable[[str], bool | Exception] = lambda _: True) -> None:
        self.batches: list[list[str]] = []
        self.told: list[tuple[str, list[str]]] = []
        self.gate = asyncio.Event()
        self._answer = answer

    async def settle_all(self, endings: Sequence[tuple[Any, Any]]) -> list[bool | Exception]:
        self.batches.append([job.id for job, _ in endings])
        await self.gate.wait()
        return [self._answer(job.id) for job, _ in endings]

    async def acknowledge_all(self, endings: Sequence[tuple[Any, Any]]) -> None:
        self.told.append(("acknowledged", [job.id for job, _ in endings]))

    async def stand_down(self, *jobs: Any) -> None:
        self.told.append(("stood down", [job.id for job in jobs]))


SETTLEMENT: Any = SimpleNamespace(outcome="completed", status=SimpleNamespace(value="completed"))


async def at_once() -> None:
    """Nothing is being claimed."""


async def close(ledger: Ledger, *groups: str, settlement: Any = SETTLEMENT) -> list[tuple[str, bool]]:
    """Close the attempts of each group while the group before is under way; return what was closed, and written."""
    closed: list[tuple[str, bool]] = []
    running = Running(lambda task: task.result())
    closer = Closer(
        ledger,  # type: ignore[arg-type]  # the three methods that it calls
        keep=running.keep,
        on_closed=lambda attempt, ending: closed.append((attempt.job.id, ending is not None)),
        starts_are_made=at_once,
    )
    for group in groups:
        for name in group.split():
            job = SimpleNamespace(id=name, names={"job_id": name})
            closer.close(SimpleNamespace(job=job, stop_reason=None), settlement)  # type: ignore[arg-type]  # as much of it as is read
        await asyncio.sleep(0)
    ledger.gate.set()
    await running.until_idle(within_s=5)
    assert closer.count == 0
    return closed


async def test_what_ends_while_a_batch_settles_settles_together() -> None:
    ledger = Ledger()

    closed = await close(ledger, "a b", "c", "d")

    assert ledger.batches == [["a", "b"], ["c", "d"]]
    assert closed == [(name, True) for name in "abcd"]
    assert ledger.told == [("acknowledged", ["a", "b"]), ("acknowledged", ["c", "d"])]


@pytest.mark.parametrize(("answer", "told"), [(False, [("stood down", ["b"])]), (ValueError("no row holds it"), [])])
async def test_one_that_is_not_written_frees_its_slot_and_is_not_acknowledged(
    answer: bool | Exception, told: list[tuple[str, list[str]]]
) -> None:
    ledger = Ledger(lambda name: answer if name == "b" else True)

    closed = await close(ledger, "a b c")

    assert closed == [("a", True), ("b", False), ("c", True)]
    assert ledger.told == [("acknowledged", ["a", "c"]), *told]


async def test_a_job_that_is_given_up_waits_for_no_database() -> None:
    ledger = Ledger()

    assert await close(ledger, "a", settlement=None) == [("a", False)]
    assert (ledger.batches, ledger.told) == ([], [("stood down", ["a"])])
