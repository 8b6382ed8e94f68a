"""Doubt: what becomes of running jobs whose leases were not renewed. Their rows decide, not Redis.

Redis may have been away, emptied, or set back to an older state; a worker that gave its jobs up for that would end
healthy ones. Another claim runs a job only after the row has said so.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from app.errors import Unavailable
from app.history.reader import Reader
from app.log import get_log
from app.queue.client import Claims, LetGo, Queue
from workers.attempt import StopReason
from workers.lease import Held

log = get_log()


class Doubts:
    """Asks the rows about doubtful leases, one question at a time, and has the lost jobs stopped.

    ``claim_of`` returns the claim under which a job runs or starts here, None for any other job.
    """

    def __init__(
        self,
        claim_of: Callable[[str], str | None],
        reader: Reader,
        *,
        limit_s: float,
        stop: Callable[[Iterable[str], StopReason], None],
    ) -> None:
        self._claim_of = claim_of
        self._reader = reader
        self._limit_s = limit_s
        self._stop = stop
        self._question: asyncio.Task[None] | None = None

    def ask(self, doubtful: Sequence[Held]) -> None:
        """Ask, unless the last question still waits for its answer; call it at every turn while there is doubt."""
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self.settle(doubtful))

    async def settle(self, doubtful: Sequence[Held]) -> None:
        """Stop what another claim has; without an answer, stop what no store has called ours for a whole lease."""
        held = {one.job_id: one for one in doubtful if self._claim_of(one.job_id) == one.token}
        try:
            async with asyncio.timeout(self._limit_s):
                await self.stop_lost({job_id: one.token for job_id, one in held.items()})
        except (Unavailable, TimeoutError) as error:
            expired = {job_id: one.token for job_id, one in held.items() if one.good_until <= monotonic()}
            log.warning("rows_not_asked", doubtful=len(held), stopped=len(expired), reason=str(error))
            self._stop_claims(expired, StopReason.CUT_OFF)

    async def stop_lost(self, claims: dict[str, str]) -> None:
        """Stop the jobs of these claims, by job, that their rows do not call ours. Raises Unavailable."""
        if claims:
            mine = await self._reader.running_under(claims)
            lost = {job_id: claim for job_id, claim in claims.items() if job_id not in mine}
            self._stop_claims(lost, StopReason.LOST)

    async def without_my_own(self, claims: Claims, queue: Queue) -> Claims:
        """Leave out jobs that run here: a Redis set back offers them. They go back under the claim they run under."""
        mine = {claim.id: token for claim in claims.claims if (token := self._claim_of(claim.id)) is not None}
        if not mine:
            return claims
        lent = [claim for claim in claims.claims if claim.id in mine]
        await queue.let_go([LetGo(id=one.id, token=one.token, verb="lend", argument=mine[one.id]) for one in lent])
        return replace(claims, claims=[claim for claim in claims.claims if claim.id not in mine])

    def _stop_claims(self, claims: Mapping[str, str], reason: StopReason) -> None:
        """Stop what runs under these claims still: while a store was asked, a retry may have followed one of them."""
        self._stop([job_id for job_id, claim in claims.items() if self._claim_of(job_id) == claim], reason)
