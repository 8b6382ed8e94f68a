"""What a follower is told, and what they know already."""

from typing import Any

import orjson
import pytest

from app.api.hub import Follower, Interest, News, TooSlow, is_newer, job_room
from app.api.news import EVENT_TYPES, TaskNews
from app.jobs.status import Status
from app.live.events import Event, Position, parse_position


def event(name: str = "task.progress", status: Status = Status.RUNNING, **changes: Any) -> Event:
    plain: dict[str, Any] = {"job_id": "j", "kind": "test.note", "queue": "alpha", "owner": "ada", "user_id": None}
    return Event(**plain | {"type": name, "status": status, "attempt": 1} | changes)


def news(number: int, **changes: Any) -> News:
    return News(event(**changes), Position(entry=f"{number}-0", epoch=1))


def new_follower() -> Follower:
    return Follower(Interest(room=job_room("j")))


async def test_the_newer_of_two_waiting_reports_of_progress_replaces_the_older() -> None:
    follower = new_follower()

    for percent in range(1000):
        follower.offer(news(percent, progress=float(percent)))

    assert [taken.event.progress for taken in await follower.take()] == [999]


async def test_progress_never_swallows_another_event() -> None:
    follower = new_follower()

    follower.offer(news(1, name="task.started"))
    follower.offer(news(2, progress=5.0))
    follower.offer(news(3, attempt=2, progress=1.0))

    assert [taken.message.id for taken in await follower.take()] == ["1.1-0", "1.2-0", "1.3-0"]


async def test_who_lets_too_much_wait_is_too_slow() -> None:
    follower = new_follower()

    for attempt in range(2001):
        follower.offer(news(attempt, name="task.started", attempt=attempt))

    with pytest.raises(TooSlow):
        await follower.take()


@pytest.mark.parametrize(
    ("first", "second", "newer"),
    [
        (event("task.started"), event(progress=1.0), True),
        (event(progress=2.0), event(progress=1.0), False),
        (event(progress=2.0), event("task.started"), False),
        (event(progress=2.0), event("task.started", attempt=2), True),
        (event(progress=2.0), event("task.retrying", Status.PENDING), True),
        (event("task.retrying", Status.PENDING), event("task.cancelled", Status.CANCELLED), True),
        (event("task.retrying", Status.PENDING), event("task.retrying", Status.PENDING), False),
    ],
)
def test_a_follower_is_told_only_what_is_newer_than_what_they_know(first: Event, second: Event, newer: bool) -> None:
    assert is_newer(second, first) is newer


def test_every_end_of_a_task_has_its_message_and_every_message_the_fields_that_are_promised() -> None:
    data = orjson.loads(news(1).message.body)["data"]

    assert {f"task.{status}" for status in Status if status.is_final} <= set(EVENT_TYPES)
    assert set(data) == set(TaskNews.model_fields)


@pytest.mark.parametrize("text", ["3.1763790000000-0", "0.0-0", "12.unknown"])
def test_a_position_is_read_as_it_was_written(text: str) -> None:
    assert str(parse_position(text)) == text


@pytest.mark.parametrize("text", ["", "1-0", "1.", "1.2", "x.1-0", "1.1-0.end", "1." + "9" * 20 + "-0", "-1.1-0"])
def test_what_is_no_position_is_none(text: str) -> None:
    assert parse_position(text) is None


async def test_progress_that_is_replaced_moves_to_its_own_place() -> None:
    follower = new_follower()

    follower.offer(news(0, progress=1.0))
    follower.offer(news(1, name="task.retrying"))
    follower.offer(news(2, progress=2.0))

    assert [taken.message.id for taken in await follower.take()] == ["1.1-0", "1.2-0"]
