"""The work: one module per family, of the same name as its contract in ``app/jobs/``.

A worker imports only the families whose queues it serves, so that their libraries are loaded only there.
"""

from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from typing import Any, TypeVar

from app.errors import Misconfigured
from app.jobs.catalogue import Catalogue
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
        function.__job_type__ = job_type  # type: ignore[attr-defined]  # read by load_work alone
        return function

    return mark


def load_work(catalogue: Catalogue, queues: Iterable[str]) -> dict[str, Work]:
    """Import the families that these queues need; return the work by kind, refusing what is missing or double."""
    served = set(queues)
    found: dict[str, Work] = {}
    for family in {job_type.family for job_type in catalogue.all if job_type.queue in served}:
        for function in vars(import_module(f"workers.families.{family}")).values():
            job_type = getattr(function, "__job_type__", None)
            if job_type is None:
                continue
            if found.setdefault(job_type.kind, function) is not function:
                raise Misconfigured(f"Two functions claim to be the work of {job_type.kind}.")
    for job_type in catalogue.all:
        if job_type.queue in served and job_type.kind not in found:
            raise Misconfigured(f"No function in workers/families/{job_type.family} is the work of {job_type.kind}.")
    return found
