"""What the jobs of one worker share: places for child processes, and a count of what would not leave."""

import asyncio
import os
import threading


class Room:
    """The places of one worker. ``children`` is how many child processes run at a time, 0 one per CPU core."""

    def __init__(self, children: int = 0) -> None:
        self.places = asyncio.Semaphore(children or os.cpu_count() or 1)
        self._strays: list[threading.Thread] = []

    def leave_behind(self, thread: threading.Thread) -> None:
        """Note a thread that went on although its job has ended."""
        self._strays.append(thread)

    @property
    def strays(self) -> int:
        """How many threads without a job still run."""
        self._strays = [thread for thread in self._strays if thread.is_alive()]
        return len(self._strays)
