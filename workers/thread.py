"""A blocking call in a thread of its own, which a limit or a cancel can reach.

Not in the loop's thread pool: that one has a handful of threads, which the database shares, and one that
never returns would be missing for ever and keep the process from ending.
"""

import asyncio
import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_PATIENCE_S = 1.0  # for a stopped thread to end
_TRIES = 2


class ThreadStopped(BaseException):  # not an Exception: what the function handles must not keep it alive
    """The job of this thread has ended."""


class ThreadCall(Generic[T]):
    """One call of a function in a thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[T] = self._loop.create_future()
        self.thread = threading.Thread(target=copy_context().run, args=(self._run,), name="job-thread", daemon=True)

    async def result(self) -> T:
        """Start the thread, and return what the function returns or raise what it raises."""
        self.thread.start()
        return await asyncio.shield(self._answer)

    async def stop(self) -> bool:
        """Raise :class:`ThreadStopped` in the thread and wait a moment; return whether it has ended.

        It arrives at the next line of Python: a call into C that does not return keeps it out. If that line is one of
        a finalizer, Python drops it; so it is raised once more.
        """
        for _ in range(_TRIES):
            if self._answer.done():
                break
            if self.thread.is_alive() and self.thread.ident is not None:
                stopped = ctypes.py_object(ThreadStopped)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), stopped)
            await asyncio.wait([self._answer], timeout=_PATIENCE_S / _TRIES)
        return self._answer.done()

    def _run(self) -> None:
        try:
            value = self._function()
        except BaseException as error:  # whatever it is, the job that waits for it judges it
            self._tell(None, error)
        else:
            self._tell(value, None)

    def _tell(self, value: T | None, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._take, value, error)

    def _take(self, value: Any, error: BaseException | None) -> None:
        if error is None:
            self._answer.set_result(value)
            return
        if not isinstance(error, Exception) or isinstance(error, StopIteration):  # no future carries these
            error = RuntimeError(f"{type(error).__name__} was raised in the job's thread: {error}")
        self._answer.set_exception(error)
        self._answer.exception()  # read, in case that nobody waits for it any more
