"""What was read a moment ago, so that who asks again is not answered by the database."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

K = TypeVar("K")
V = TypeVar("V")


class Fresh(Generic[K, V]):
    """Answers from memory for ``ttl_s`` seconds, counted from before the reading; reads a key once at a time.

    Keeps the ``limit`` keys that were asked for last.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]], *, ttl_s: float, limit: int) -> None:
        self._read = read
        self._ttl_s = ttl_s
        self._limit = limit
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._turns: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    async def get(self, key: K) -> V:
        """Return the value of a key, at most ``ttl_s`` seconds old."""
        known = self._known.get(key)
        if known is not None and time.monotonic() < known[0]:
            self._known.move_to_end(key)
            return known[1]
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            known = self._known.get(key)
            if known is not None and time.monotonic() < known[0]:
                return known[1]
            return await self._read_again(key)

    def forget(self, key: K) -> None:
        """Read a key again when it is asked for next."""
        self._known.pop(key, None)

    async def _read_again(self, key: K) -> V:
        until = time.monotonic() + self._ttl_s
        value = await self._read(key)
        self._known[key] = (until, value)
        self._known.move_to_end(key)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return value
