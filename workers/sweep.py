"""The sweep: a rolling walk over every job that has not ended, which rings again what Redis has lost.

It covers the API that died between commit and ring, a Redis that came back empty or old, and a lease that vanished.
It only adds what is missing and never decides that a holder is dead. One worker at a time sweeps. When the epoch
says that Redis or the database is not what it was, the walk starts over at full speed, and must come to its end.
"""

import asyncio
from datetime import timedelta
from time import monotonic

from app.clock import new_id
from app.history.epochs import advance_epoch, read_epoch
from app.history.pauses import read_pauses
from app.history.reader import LiveJob
from app.installation import Installation
from app.log import get_log
from app.queue import keys
from app.queue.epoch import Epochs, Mark

log = get_log()

_LOCK_S = 5
_PAGE = 1000
_PAGE_PAUSE_S = 0.2  # between pages of one walk, so that a long backlog does not crowd out the work
_LOOK_S = 2.0  # how often the epoch is read
_WALK_PAUSE_S = 3.0


class Sweep:
    """One worker's turn at sweeping."""

    def __init__(self, house: Installation, *, worker_id: str) -> None:
        self._worker_id = worker_id
        self._house = house
        self._epochs = Epochs(house.redis, lease=timedelta(seconds=house.settings.lease_s))
        self._walked_at = -_WALK_PAUSE_S
        self._had_turn = False  # when it last looked

    async def run(self) -> None:
        """Look for ever, whenever the turn is this worker's. Raises when a store does not answer.

        Raises Misconfigured, whosever turn it is, when Redis is not this installation's any more.
        """
        run_id: str | None = None
        while True:
            mark, counter = await self._read_epoch(run_id)
            if await self._has_turn():
                await self._look(mark, counter)
            run_id = mark.server_run_id if run_id is None else None  # asked at every other look: INFO is long
            await asyncio.sleep(_LOOK_S)

    async def walk(self) -> int:
        """Go once over all live jobs, young ones first; return how many were rung again."""
        await self._restore_pauses()
        restored, before = 0, None
        while page := await self._page(before):
            restored += await self._house.lifecycle.restore(page)
            before = page[-1]
            if len(page) < _PAGE or not await self._has_turn():
                break
            await asyncio.sleep(_PAGE_PAUSE_S)
        if restored:
            log.warning("jobs_rung_again", count=restored)
        return restored

    async def rebuild(self) -> int | None:
        """Walk at full speed until one walk has come to its end; return how many jobs it rang again.

        None: the turn has gone to another worker, and to go on would stop its walk, as that would stop this one.
        """
        while True:
            mark, _ = await self._read_epoch()
            walk, before = new_id(), monotonic()
            epoch = await advance_epoch(self._house.database, beyond=mark.counter)
            paused = await read_pauses(self._house.database)
            await self._epochs.begin(epoch.installation, epoch.counter, walk, paused)
            log.warning("rebuild_started", epoch=epoch.counter)
            restored = await self._walk_under(walk)
            if restored is not None and await self._epochs.end(walk, mark.server_run_id):
                log.warning("rebuild_done", count=restored, seconds=round(monotonic() - before, 3))
                return restored
            if not await self._has_turn():
                log.warning("rebuild_left_to_another")
                return None
            log.warning("rebuild_started_over")  # Redis was emptied again, or one who has lost the turn broke in

    async def drop_ghosts(self) -> int:
        """Take entries out whose jobs are not live in the database; return how many."""
        dropped = 0
        for queue in self._house.catalogue.queues:
            for priority in keys.PRIORITIES:
                dropped += await self._drop_ghosts_of(queue, priority)
        if dropped:
            log.warning("entries_without_live_row_dropped", count=dropped)
        return dropped

    async def _look(self, mark: Mark, counter: int) -> None:
        if not mark.is_current(counter):
            if await self.rebuild() is not None:
                await self.drop_ghosts()
        elif monotonic() - self._walked_at >= _WALK_PAUSE_S:
            await self.walk()
            self._walked_at = monotonic()

    async def _walk_under(self, walk: str) -> int | None:
        """Walk without a pause; None if the walk is not the current one any more."""
        restored, before = 0, None
        while page := await self._page(before):
            rung = await self._house.lifecycle.restore(page, walk=walk)
            if rung < 0:
                return None
            restored, before = restored + rung, page[-1]
            await self._has_turn()  # renews it; were it lost, the other's walk would end this one
        return restored

    async def _page(self, before: LiveJob | None) -> list[LiveJob]:
        return await self._house.reader.live_page(before=before, limit=_PAGE)

    async def _drop_ghosts_of(self, queue: str, priority: int) -> int:
        start, dropped = 0, 0
        while True:
            seen, gone = await self._house.lifecycle.drop_ghosts(queue, priority, start=start, count=_PAGE)
            start, dropped = start + seen - gone, dropped + gone
            if seen < _PAGE:
                return dropped
            await self._has_turn()

    async def _restore_pauses(self) -> None:
        """Tell Redis what it missed. Redis is read first: what changes meanwhile is told by who changes it."""
        told = await self._house.queue.paused()
        wanted = await read_pauses(self._house.database)
        for name in told ^ wanted.keys():
            await self._house.queue.pause(name, is_paused=name in wanted)

    async def _read_epoch(self, server_run_id: str | None = None) -> tuple[Mark, int]:
        epoch = await read_epoch(self._house.database)
        return await self._epochs.read(epoch.installation, server_run_id=server_run_id), epoch.counter

    async def _has_turn(self) -> bool:
        """Take, or renew, the lock: by one command while this worker holds it."""
        redis = self._house.redis
        holder = await (redis.getex(keys.SWEEPER, ex=_LOCK_S) if self._had_turn else redis.get(keys.SWEEPER))
        if holder is None:
            self._had_turn = bool(await redis.set(keys.SWEEPER, self._worker_id, nx=True, ex=_LOCK_S))
        elif holder == self._worker_id.encode():
            self._had_turn = self._had_turn or bool(await redis.expire(keys.SWEEPER, _LOCK_S))
        else:
            self._had_turn = False
            if await redis.ttl(keys.SWEEPER) == -1:  # none of us leaves a lock that never ends
                await redis.expire(keys.SWEEPER, _LOCK_S)
        return self._had_turn
