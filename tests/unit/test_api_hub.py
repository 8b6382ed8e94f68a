"""What a follower is told, and what they know already."""

from typing import Any

import pytest

from app.api.hub import Follower, TooSlow, is_newer
from app.jobs.status import Status
from app.live.events import Event, Published


def event(name: str = "task.progress", status: Status = Status.RUNNING, **changes: Any) -> Event:
    plain: dict[str, Any] = {"job_id": "j", "kind": "test.note", "queue": "alpha", "owner": "ada", "user_id": None}
    return Event(**plain | {"type": name, "status": status, "attempt": 1} | changes)


def published(number: int, **changes: Any) -> Published:
    return Published(id=f"{number}-0", event=event(**changes))


async def test_the_newer_of_two_waiting_reports_of_progress_replaces_the_older() -> None:
    follower = Follower()

    for percent in range(1000):
        follower.offer(published(percent, progress=float(percent)))

    assert (await follower.next()).event.progress == 999


async def test_progress_never_swallows_another_event() -> None:
    follower = Follower()

    follower.offer(published(1, name="task.started"))
    follower.offer(published(2, progress=5.0))
    follower.offer(published(3, attempt=2, progress=1.0))

    assert [(await follower.next()).id for _ in range(3)] == ["1-0", "2-0", "3-0"]


async def test_who_lets_too_much_wait_is_too_slow() -> None:
    follower = Follower()

    for attempt in range(101):
        follower.offer(published(attempt, name="task.started", attempt=attempt))

    with pytest.raises(TooSlow):
        await follower.next()


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
