"""Takes jobs in: claims them, and starts what was claimed while the next claim is under way.

A claim waits for Redis and a start for the database; one after the other they would leave a busy worker's event loop
with nothing to do twice a batch. What is claimed while one start commits is started together.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from redis.exceptions import ResponseError

from app.history.writer import Started
from app.installation import Installation
from app.log import get_log
from app.queue.client import Claims
from app.steady import ANY_OUTAGE, OUTAGE_PAUSE_S
from workers.doubt import Doubts
from workers.lease import LeaseKeeper
from workers.suspects import Suspects

log = get_log()

_HEAD_START_S = 0.005  # for claims, and for their starts, before what has ended settles
_MAX_CLAIM = 50  # jobs in one claim: the first of a wave start while the last are claimed


class Intake:
    """Claims and starts the jobs of one worker, in the order in which they should run.

    ``keep`` runs what the worker's end has to wait for. ``launch`` is called with the jobs of every start that are this
    worker's to run, and with none once the start is over.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        worker_id: str,
        keeper: LeaseKeeper,
        suspects: Suspects,
        doubts: Doubts,
        keep: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        launch: Callable[[Sequence[Started]], None],
    ) -> None:
        # Claimed jobs that hold a slot and have not started yet, and their claims; None while one is let go of.
        self.pending: dict[str, str | None] = {}
        self.is_clear = asyncio.Event()  # unset for a while after a start found a store away
        self.is_clear.set()
        self.is_closed = False  # what is claimed from now on goes back
        self._queue = installation.queue
        self._lifecycle = installation.lifecycle
        self._worker_id = worker_id
        self._keeper = keeper
        self._suspects = suspects
        self._doubts = doubts
        self._keep = keep
        self._launch = launch
        self._number = 0  # of the last claim
        self._is_answered = asyncio.Event()  # unset while a claim is expected or under way
        self._is_answered.set()
        self._waiting: list[Claims] = []
        self._task: asyncio.Task[None] | None = None

    async def take(self, queues: Sequence[str], *, want: int, search: bool) -> Claims:
        """Claim up to ``want`` jobs, and start them at once or with all that come while others start.

        Raises what Redis does when it is away.
        """
        self.expect()
        try:
            claim = self._queue.claim(queues, want=min(want, _MAX_CLAIM), token=self._next_token(), search=search)
            return await self._take(await claim)
        finally:
            self._is_answered.set()

    async def take_at_bell(self, queues: Sequence[str], *, want: int, search: bool, at_most_s: float) -> Claims:
        """Do what :meth:`take` does once a bell rings, this worker is woken, or the time is over."""
        claim = self._queue.claim_at_bell(
            queues,
            want=min(want, _MAX_CLAIM),
            token=self._next_token(),
            search=search,
            at_most_s=at_most_s,
            name=self._worker_id,
        )
        claims = await self._take(await claim)
        await self.starts_are_made()  # before this worker turns to its bells again: it had nothing else to do
        return claims

    def expect(self) -> None:
        """Be told that there is room again, so that a claim is about to come."""
        self._is_answered.clear()

    async def starts_are_made(self) -> None:
        """Wait, not for long, until what is being claimed has started.

        It fills slots that stand empty, while what has ended can settle a little later, in a larger batch.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEAD_START_S):
                await self._is_answered.wait()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_HEAD_START_S)

    def _next_token(self) -> str:
        self._number += 1
        return f"{self._worker_id}:{self._number}"

    async def _take(self, claims: Claims) -> Claims:
        fresh = await self._doubts.without_my_own(claims, self._queue)
        is_late = self._keeper.has_run_out(asked_at=fresh.asked_at)  # this process, or Redis, was held up
        if is_late and fresh.claims:
            log.warning("claims_came_too_late", count=len(fresh.claims))
        if self.is_closed or is_late or not self.is_clear.is_set():
            await self._lifecycle.give_back(fresh.claims)
        elif fresh.claims:
            self._keeper.hold_all(fresh.claims, asked_at=fresh.asked_at)
            self._start_soon(fresh)
        return claims

    def _start_soon(self, claims: Claims) -> None:
        self.pending.update((claim.id, claim.token) for claim in claims.claims)
        self._waiting.append(claims)
        if self._task is None or self._task.done():
            self._task = self._keep(self._start_all())

    async def _start_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = _together(self._waiting), []
                await self._start(batch)
        finally:  # of what is left after a defect, or at the end of the loop, the leases run out
            for left in self._waiting:
                self._done_with(left, ())
            self._waiting = []
            self.is_clear.set()

    async def _start(self, batch: Claims) -> None:
        mine: list[Started] = []

        def decide(started: Sequence[Started] | None) -> None:
            if started is None:
                self.is_clear.clear()
            mine.extend(started or ())
            won = {job.id for job in mine}
            for claim in batch.claims:
                if claim.id in won:
                    del self.pending[claim.id]
                else:
                    self.pending[claim.id] = None
            self._launch(mine)

        try:
            await self._lifecycle.start(
                batch, worker_id=self._worker_id, take_aside=self._suspects.take, on_decided=decide
            )
        except (*ANY_OUTAGE, ResponseError) as error:
            log.warning("claiming_interrupted", reason=str(error))
            self.is_clear.clear()
        finally:
            self._done_with(batch, mine)
        if not self.is_clear.is_set():
            await asyncio.sleep(OUTAGE_PAUSE_S)
            self.is_clear.set()

    def _done_with(self, batch: Claims, started: Sequence[Started]) -> None:
        won = {job.id for job in started}
        for claim in batch.claims:
            if claim.id not in won and claim.id not in self._suspects.held:
                self._keeper.drop(claim.id, claim.token)
            if self.pending.get(claim.id) in {claim.token, None}:  # it may wait under another claim by now
                self.pending.pop(claim.id, None)
        self._launch(())  # there may be room


def _together(waiting: Sequence[Claims]) -> Claims:
    """Join claims into one, judged by the latest of their times."""
    return replace(waiting[-1], claims=[claim for one in waiting for claim in one.claims])
