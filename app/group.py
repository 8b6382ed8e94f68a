"""Group commit: the first item goes at once, what arrives meanwhile goes together.

Batching never delays an idle system, and a busy one pays for one transaction instead of hundreds.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.exc import StatementError

from app.errors import InvalidInput

# What an item can be refused for: by the database, by its driver at bind time, or on the way to it.
REFUSALS = (StatementError, InvalidInput, ValueError, TypeError, ArithmeticError)

T = TypeVar("T")
R = TypeVar("R")


async def in_parts(flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]], items: Sequence[T]) -> list[R | Exception]:
    """Flush items together; return the answer for each, which may be what went wrong with it.

    A batch that is refused for its content is split until the culprit stands alone, so that one bad row never
    takes its neighbours along.
    """
    try:
        return list(await flush(items))
    except REFUSALS as error:
        if len(items) == 1:
            return [error]
        middle = len(items) // 2
        return [*await in_parts(flush, items[:middle]), *await in_parts(flush, items[middle:])]
    except Exception as error:  # an outage, or a defect: it is everybody's answer
        return [error] * len(items)


class GroupCommit(Generic[T, R]):
    """Collects items and hands them to ``flush`` in batches; each caller gets the answer for its own item.

    ``flush`` takes up to ``limit`` items and returns as many answers in the same order; for a batch that is refused
    see :func:`in_parts`. ``follow`` is told of the items of each batch that were not refused, and callers get their
    answers once it returns; the next batch is on its way meanwhile.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        limit: int = 500,
        follow: Callable[[Sequence[T]], Awaitable[None]] | None = None,
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._follow = follow
        self._following: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        # One task for all callers, on purpose: a caller that is cancelled must not take the batch with it.
        self._flusher: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """Send one item; return once its transaction is committed, or raise what went wrong with it."""
        return await self.send(item)

    def send(self, item: T) -> asyncio.Future[R]:
        """Send one item without waiting; the future gets its answer."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._drain())
        return future

    async def close(self) -> None:
        """Wait until everything that was sent is committed, and what follows is done."""
        if self._flusher is not None:
            await self._flusher
        if self._following:
            await asyncio.wait(self._following)

    async def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            await self._commit(batch)

    async def _commit(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await in_parts(self._flush, [item for item, _ in batch])
        except BaseException:  # the loop ends
            for _, future in batch:
                future.cancel()
            raise
        if self._follow is None:
            _answer(batch, answers)
            return
        task = asyncio.create_task(self._follow_up(self._follow, batch, answers))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow_up(
        self,
        follow: Callable[[Sequence[T]], Awaitable[None]],
        batch: Sequence[tuple[T, asyncio.Future[R]]],
        answers: Sequence[R | Exception],
    ) -> None:
        good = [item for (item, _), answer in zip(batch, answers, strict=True) if not isinstance(answer, Exception)]
        try:
            if good:
                await follow(good)
        finally:  # what is committed is committed, whatever became of what follows
            _answer(batch, answers)


def _answer(batch: Sequence[tuple[T, asyncio.Future[R]]], answers: Sequence[R | Exception]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
