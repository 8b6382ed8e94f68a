"""Waiting for what happens elsewhere, with a limit."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

_PAUSE_S = 0.01


@overload
async def eventually(check: Callable[[], Awaitable[T | None]], within: float = 5.0) -> T: ...
@overload
async def eventually(check: Callable[[], T | None], within: float = 5.0) -> T: ...
async def eventually(check: Callable[[], Any], within: float = 5.0) -> Any:
    """Call ``check`` until it returns something true, and return that; fail after ``within`` seconds.

    An AssertionError of ``check`` counts as "not yet"; the last one is the cause of the failure.
    """
    deadline = time.monotonic() + within
    while True:
        seen, cause = await _ask(check)
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within:g} s; last seen: {seen!r}") from cause
        await asyncio.sleep(_PAUSE_S)


async def _ask(check: Callable[[], Any]) -> tuple[Any, AssertionError | None]:
    try:
        answer = check()
        return (await answer if inspect.isawaitable(answer) else answer), None
    except AssertionError as error:
        return None, error
