"""Work that notices when it runs twice at once, or more often than once."""

import asyncio
from collections import Counter
from typing import Any

from tests.support.workplace import Anything, Something
from workers.context import Context


class Watched:
    """Counts the runs of each value, and those that began while another of the same value still ran."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds  # how long each run takes
        self.runs: Counter[Any] = Counter()
        self.overlaps: list[Any] = []
        self.running: set[Any] = set()

    async def work(self, _ctx: Context, params: Anything) -> Something:
        """Run for a while."""
        value = params.value
        if value in self.running:
            self.overlaps.append(value)
        self.runs[value] += 1
        self.running.add(value)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running.discard(value)
        return Something(value=value)
