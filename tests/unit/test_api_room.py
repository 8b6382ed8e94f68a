"""How much a process takes on at once."""

import pytest

from app.api.room import Room
from app.errors import Busy


def test_requests_beyond_the_limit_are_refused_until_one_leaves() -> None:
    room = Room(max_requests=2, max_bytes=100)
    room.take(1)
    room.take(1)
    with pytest.raises(Busy):
        room.take(1)

    room.leave(1)

    room.take(1)


def test_bodies_beyond_the_limit_are_refused_until_one_leaves() -> None:
    room = Room(max_requests=10, max_bytes=100)
    room.take(90)
    with pytest.raises(Busy):
        room.take(11)

    room.leave(90)

    room.take(11)


def test_a_body_above_the_limit_is_taken_when_it_is_alone() -> None:
    room = Room(max_requests=10, max_bytes=100)

    room.take(500)

    with pytest.raises(Busy):
        room.take(1)
