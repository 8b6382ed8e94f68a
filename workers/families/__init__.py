"""The work: one module per family, of the same name as its contract in ``app/jobs/``.

A worker imports a family when the first of its jobs runs: with the libraries of all families a process holds
four times the memory of one that has run light jobs, and starts four times as slowly.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from typing import Any, TypeVar

from app.errors import Misconfigured
from app.jobs.catalogue import AnyJobType, Catalogue
from app.jobs.contract import JobType
from app.jobs.fields import Params, Result
from workers.context import Context

P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)
Work = Callable[[Context, Any], Awaitable[Result]]


def work(
    job_type: JobType[P, R],
) -> Callable[[Callable[[Context, P], Awaitable[R]]], Callable[[Context, P], Awaitable[R]]]:
    """Mark a coroutine function as the work that fulfils ``job_type``."""

    def mark(function: Callable[[Context, P], Awaitable[R]]) -> Callable[[Context, P], Awaitable[R]]:
        function.__job_type__ = job_type  # type: ignore[attr-defined]  # read by find_work alone
        return function

    return mark


def load_work(catalogue: Catalogue, queues: Iterable[str]) -> dict[str, Work]:
    """Return the work of these queues by kind; each imports its family when it is first called."""
    served = set(queues)
    return {job_type.kind: _on_first_call(job_type) for job_type in catalogue.all if job_type.queue in served}


def find_work(job_type: AnyJobType) -> Work:
    """Import the family of ``job_type`` and return its work. Raises Misconfigured where there is none, or two."""
    functions = vars(import_module(f"workers.families.{job_type.family}")).values()
    found = {function for function in functions if getattr(function, "__job_type__", None) is job_type}
    match list(found):
        case [function]:
            work: Work = function
            return work
        case []:
            raise Misconfigured(f"No function in workers/families/{job_type.family} is the work of {job_type.kind}.")
        case _:
            raise Misconfigured(f"{len(found)} functions claim to be the work of {job_type.kind}.")


def _on_first_call(job_type: AnyJobType) -> Work:
    found: Work | None = None

    async def run(ctx: Context, params: Any) -> Result:
        nonlocal found
        if found is None:
            found = await asyncio.to_thread(find_work, job_type)  # seconds, for some
        return await found(ctx, params)

    return run
