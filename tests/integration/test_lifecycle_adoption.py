"""Jobs of stock clients are adopted and run, or end with a reason; what nobody can read is put aside, never loaded."""

import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.clock import new_id
from app.installation import Installation
from app.jobs.status import Status
from app.queue import keys
from app.queue.wire import JobFailed, body_of
from app.settings import Settings
from tests.support.house import all_keys, claim, count, note, open_house, reply, result, row, start, submit

pytestmark = pytest.mark.databases("sqlite", "postgresql")


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_house(settings) as house:
        yield house


async def stranger(house: Installation, function: str = note.kind, *args: Any, **kwargs: Any) -> str:
    """Put a job into ``alpha`` as a stock arq client does; return its id."""
    job = await house.redis.enqueue_job(function, *args, _queue_name=keys.queue("alpha", 5), **kwargs)
    assert job is not None
    await house.redis.zincrby(keys.queue("alpha", 5), -1, job.job_id)  # arq rounds the time up, by half a millisecond
    return job.job_id


async def test_a_stock_clients_job_is_adopted_and_runs(house: Installation) -> None:
    job_id = await stranger(house, note.kind, text="theirs", user_id="eve")
    assert await start(house) == []

    (started,) = await start(house)

    assert (started.id, started.kind, started.params["text"]) == (job_id, note.kind, "theirs")
    stored = await row(house, job_id)
    assert (stored.submitted_by, stored.user_id, stored.queue, stored.priority) == ("arq", "eve", "alpha", 5)
    assert (stored.max_retries, stored.task_type) == (note.retry.max_retries, note.task_type)


async def test_a_stock_clients_job_may_go_by_an_alias(house: Installation) -> None:
    job_id = await stranger(house, "note")

    await start(house)

    assert (await row(house, job_id)).kind == note.kind


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "reason"),
    [
        ("nobody.knows", [], {}, ("unknown_task", "nobody.knows")),
        (count.kind, [], {"up_to": "three"}, ("validation_error", "/up_to")),
        (count.kind, [3], {}, ("validation_error", "named parameters only")),
    ],
    ids=["unknown-function", "invalid-params", "positional-arguments"],
)
async def test_a_stock_clients_job_that_cannot_run_ends_failed_and_says_why(
    house: Installation, function: str, args: list[Any], kwargs: dict[str, Any], reason: tuple[str, str]
) -> None:
    job_id = await stranger(house, function, *args, **kwargs)

    assert await start(house) == []

    stored = await row(house, job_id)
    assert stored.error is not None
    assert (stored.status, stored.error.code) == (Status.FAILED, reason[0])
    assert reason[1] in stored.error.message
    with pytest.raises(JobFailed):
        await result(house, job_id)
    assert (await claim(house)).claims == []


async def test_an_entry_of_ours_without_a_row_is_dropped(house: Installation) -> None:
    job_id = new_id()
    await house.redis.set(keys.body(job_id), body_of(note.kind, {}, 1))
    await house.redis.zadd(keys.queue("alpha", 5), {job_id: 1})

    await start(house)
    await claim(house)

    assert await house.reader.get(job_id) is None
    assert await all_keys(house.redis) <= {keys.bell("alpha")}


async def test_an_entry_without_row_and_body_is_dropped(house: Installation) -> None:
    await house.redis.zadd(keys.queue("alpha", 5), {"nothing": 1})

    await start(house)

    assert await house.redis.exists(keys.queue("alpha", 5)) == 0


class Bomb:
    """Leaves a trace when a pickle of it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.databases("sqlite")
async def test_a_pickle_is_quarantined_and_never_loaded(house: Installation, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    body = pickle.dumps({"t": None, "f": note.kind, "a": [Bomb(trace)], "k": {}, "et": 1})
    await house.redis.set(keys.body("evil"), body)
    await house.redis.zadd(keys.queue("alpha", 5), {"evil": 1})

    await start(house)

    assert not trace.exists()
    assert await reply(house.redis.hgetall(keys.QUARANTINE)) == {b"evil": b"unreadable body|" + body}
    assert await house.redis.exists(keys.queue("alpha", 5)) == 0


async def test_a_kind_that_no_database_can_hold_is_quarantined_and_its_neighbours_run(house: Installation) -> None:
    (neighbour,) = await submit(house)
    job_id = await stranger(house, "nul\0")

    started = await start(house)

    assert [job.id for job in started] == [neighbour.id]
    assert await house.reader.get(job_id) is None
    assert await reply(house.redis.hkeys(keys.QUARANTINE)) == [job_id.encode()]
    assert (await claim(house)).claims == []


async def test_params_that_no_database_can_hold_end_their_job_and_its_neighbours_run(house: Installation) -> None:
    (neighbour,) = await submit(house)
    job_id = await stranger(house, note.kind, user_id="nul\0", text="nul\0")

    started = await start(house)

    assert [job.id for job in started] == [neighbour.id]
    stored = await row(house, job_id)
    assert (stored.status, stored.user_id, stored.error and stored.error.code) == (
        Status.FAILED,
        None,
        "validation_error",
    )
