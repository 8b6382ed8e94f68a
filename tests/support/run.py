"""What a job is given, for one attempt without a worker around it, on a real installation."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from app.installation import Installation
from app.records.store import Records
from workers.context import Context

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
T = TypeVar("T")


@dataclass
class Run:
    """The parts of a context that the service's own jobs use."""

    installation: Installation
    now: datetime = NOW
    reports: list[float] = field(default_factory=list)

    @property
    def records(self) -> Records:
        """The records of the installation."""
        return self.installation.records

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        """Keep what was reported."""
        self.reports.append(percent)

    async def run_thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run beside the event loop."""
        return await asyncio.to_thread(function, *args, **kwargs)


def context_of(house: Installation, *, now: datetime = NOW) -> Context:
    """Return a run as what the work declares to take."""
    return cast(Context, Run(installation=house, now=now))
