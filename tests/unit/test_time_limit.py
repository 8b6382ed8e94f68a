"""One limit for much at a time: what takes too long is given up, alone, and nothing else is."""

import asyncio

import pytest

from app.api.time_limit import TimeLimit, TookTooLong


async def test_what_takes_too_long_is_given_up_and_its_neighbour_is_not() -> None:
    limit, neighbour = TimeLimit(0.01), asyncio.Event()

    async def lifted() -> str:
        limit.lift()
        await neighbour.wait()
        return "done"

    free = asyncio.create_task(limit.hold(lifted()))
    with pytest.raises(TookTooLong):
        await limit.hold(asyncio.Event().wait())
    neighbour.set()

    assert await free == "done"


async def test_after_a_limit_ran_out_the_task_goes_on_and_can_be_cancelled() -> None:
    limit = TimeLimit(0.01)
    late = asyncio.Event()

    async def work() -> None:
        with pytest.raises(TookTooLong):
            await limit.hold(asyncio.Event().wait())
        late.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await late.wait()
    assert task.cancelling() == 0

    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_cancellation_from_outside_is_no_limit_that_ran_out() -> None:
    task = asyncio.create_task(TimeLimit(60).hold(asyncio.Event().wait()))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


async def test_what_runs_out_later_is_given_up_later() -> None:
    limit, order = TimeLimit(0.01), []

    async def work(name: str) -> None:
        with pytest.raises(TookTooLong):
            await limit.hold(asyncio.Event().wait())
        order.append(name)

    first = asyncio.create_task(work("first"))
    await asyncio.sleep(0)
    limit.limit_s = 0.03
    second = asyncio.create_task(work("second"))
    await asyncio.gather(first, second)

    assert order == ["first", "second"]
