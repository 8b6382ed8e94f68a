"""Holds the attempts of one worker against their time limits, and gives up those that do not stop."""

import asyncio
import time
from collections.abc import Iterable, Iterator

from workers.attempt import Attempt, StopReason
from workers.room import Room


class LimitKeeper:
    """Stops attempts at their hard limit; counts the work that went on although its attempt has ended."""

    def __init__(self, room: Room, *, at_most: int) -> None:
        self._room = room
        self._at_most = at_most
        self._stubborn: set[asyncio.Task[None]] = set()

    def abandoned(self, attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, asyncio.Task[None]]]:
        """Stop what has run too long; yield the attempts, with their tasks, that have to end without their work."""
        for attempt in list(attempts):
            if time.monotonic() >= attempt.hard_limit_at:
                attempt.stop(StopReason.TIMEOUT)
            if attempt.is_stubborn and attempt.task is not None:
                self._stubborn.add(attempt.task)
                attempt.task.add_done_callback(self._stubborn.discard)
                yield attempt, attempt.task

    @property
    def stubborn(self) -> int:
        """How many coroutines and threads still run although their attempts have ended."""
        return len(self._stubborn) + self._room.strays

    @property
    def has_too_many(self) -> bool:
        """Whether so much abandoned work runs here that the process should be replaced."""
        return self.stubborn > self._at_most
