"""The tasks of a worker that must outlive a helper's failure, and that its end waits for."""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any


class Running:
    """Keeps tasks until they end; ``on_broken`` is called with each that was cancelled or raised."""

    def __init__(self, on_broken: Callable[[asyncio.Task[None]], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_broken = on_broken

    def __bool__(self) -> bool:
        """Whether anything runs."""
        return bool(self._tasks)

    def keep(self, running: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something."""
        task = asyncio.get_running_loop().create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def leave(self, task: asyncio.Task[None]) -> None:
        """Wait for this one no more."""
        self._tasks.discard(task)

    async def until_idle(self, within_s: float) -> None:
        """Wait for what runs, and for what comes of it: an attempt is closed, then acknowledged."""
        until = monotonic() + within_s
        while self._tasks and (left_s := until - monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._on_broken(task)
