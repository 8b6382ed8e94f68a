"""Closes attempts: those that ended meanwhile settle in one transaction, and are acknowledged while the next ones do.

An attempt whose work is done leaves its task for here, so that a job costs one task and no future, and its slot is
not kept waiting by the database.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from app.history.writer import Settlement
from app.lifecycle import Lifecycle
from app.log import get_log
from workers.attempt import Attempt

log = get_log()

_TOGETHER = 500  # attempts in one transaction

Ended = tuple[Attempt, Settlement]


class Closer:
    """Settles and acknowledges the attempts of one worker.

    ``keep`` runs what the worker's end has to wait for. ``on_closed`` is called once for every attempt, with its
    settlement if that was written, and with None if it was not. Each batch waits until ``starts_are_made``.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        keep: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        on_closed: Callable[[Attempt, Settlement | None], None],
        starts_are_made: Callable[[], Awaitable[None]],
    ) -> None:
        self.count = 0  # attempts whose work is done, and that are not settled yet
        self._lifecycle = lifecycle
        self._keep = keep
        self._on_closed = on_closed
        self._starts_are_made = starts_are_made
        self._waiting: list[Ended] = []
        self._task: asyncio.Task[None] | None = None

    def close(self, attempt: Attempt, settlement: Settlement | None) -> None:
        """Settle an attempt, at once or with all that end while others settle; with None, give its job up."""
        if settlement is None:
            self._on_closed(attempt, None)
            self._stand_down([attempt])
            return
        self.count += 1
        self._waiting.append((attempt, settlement))
        if self._task is None or self._task.done():
            self._task = self._keep(self._close_all())

    async def _close_all(self) -> None:
        while self._waiting:
            await self._starts_are_made()
            batch, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            answers: Sequence[bool | Exception | None] = [None] * len(batch)
            try:
                answers = await self._lifecycle.settle_all([(attempt.job, ending) for attempt, ending in batch])
            finally:  # when the loop ends in between, leases run out and the rows decide
                self.count -= len(batch)
                for (attempt, ending), answer in zip(batch, answers, strict=True):
                    self._on_closed(attempt, ending if answer is True else None)
            self._finish(batch, answers)

    def _finish(self, batch: Sequence[Ended], answers: Sequence[bool | Exception | None]) -> None:
        """Tell Redis, and the log, what became of settled attempts."""
        won = [
            (attempt.job, ending) for (attempt, ending), answer in zip(batch, answers, strict=True) if answer is True
        ]
        lost = [attempt for (attempt, _), answer in zip(batch, answers, strict=True) if answer is False]
        if won:
            self._keep(self._lifecycle.acknowledge_all(won))
        if lost:
            self._stand_down(lost)
        if log.is_enabled_for(logging.INFO):
            for job, ending in won:
                log.info("job_settled", **job.names, outcome=ending.outcome, status=ending.status.value)
        for (attempt, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                log.error("attempt_broke", **attempt.job.names, exc_info=answer)

    def _stand_down(self, lost: Sequence[Attempt]) -> None:
        for attempt in lost:
            log.info("job_given_up", **attempt.job.names, reason=str(attempt.stop_reason))
        self._keep(self._lifecycle.stand_down(*(attempt.job for attempt in lost)))
