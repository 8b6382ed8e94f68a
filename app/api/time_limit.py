"""How long requests may take. Imported by the API alone."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class TookTooLong(TimeoutError):
    """A limit ran out."""


class TimeLimit:
    """One limit for much that goes on at the same time, with one timer for all of it.

    ``asyncio.timeout`` sets a timer for each, which took a thirtieth of a submit.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._until: dict[asyncio.Task[object], float] = {}  # in the order in which they run out
        self._given_up: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def hold(self, work: Awaitable[T]) -> T:
        """Await what the present task has to do; raise TookTooLong once it takes longer than that."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in one
        self._begin(task)
        try:
            return await work
        except asyncio.CancelledError as error:
            if not self._end(task) or task.uncancel() > 0:  # it is somebody else, too, who wants this to end
                raise
            raise TookTooLong from error
        finally:
            if self._end(task):
                task.uncancel()

    def lift(self) -> None:
        """Let what the present task is held to take as long as it likes."""
        task = asyncio.current_task()
        if task is not None:
            self._until.pop(task, None)

    def _begin(self, task: asyncio.Task[object]) -> None:
        loop = task.get_loop()
        until = self._until[task] = loop.time() + self.limit_s
        if self._timer is None:
            self._timer = loop.call_at(until, self._look, loop)

    def _end(self, task: asyncio.Task[object]) -> bool:
        """Forget a task; return whether it was cancelled for having taken too long."""
        self._until.pop(task, None)
        if task not in self._given_up:
            return False
        self._given_up.remove(task)
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._until:
            task, until = next(iter(self._until.items()))
            if until > loop.time():
                self._timer = loop.call_at(until, self._look, loop)
                return
            del self._until[task]
            self._given_up.add(task)
            task.cancel()
