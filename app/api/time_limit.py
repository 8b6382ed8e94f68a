"""How long a request may take until its answer begins. Imported by the API alone."""

import asyncio


class TimeLimit:
    """One limit for all requests of a process: cancels the tasks of those that take longer.

    One timer for all; ``asyncio.timeout`` for each took a thirtieth of a submit.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._until: dict[asyncio.Task[object], float] = {}  # in the order in which they run out
        self._given_up: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[object]) -> None:
        """Give a task so long from now."""
        loop = task.get_loop()
        until = self._until[task] = loop.time() + self.limit_s
        if self._timer is None:
            self._timer = loop.call_at(until, self._look, loop)

    def lift(self, task: asyncio.Task[object]) -> None:
        """Let a task take as long as it likes from now on."""
        self._until.pop(task, None)

    def end(self, task: asyncio.Task[object]) -> bool:
        """Forget a task; return whether it was cancelled for having taken too long."""
        self.lift(task)
        if task not in self._given_up:
            return False
        self._given_up.remove(task)
        return True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._until:
            task, until = next(iter(self._until.items()))
            if until > now:
                self._timer = loop.call_at(until, self._look, loop)
                return
            del self._until[task]
            self._given_up.add(task)
            task.cancel()
