"""What goes wrong around the model: leases run out, workers die, Redis loses entries, everything, or goes back."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from app.history.epochs import read_epoch
from app.history.reader import JobFilter
from app.history.rows import Job
from app.history.writer import Settlement, Started
from app.installation import Installation
from app.queue import keys
from app.queue.scripts import script_text
from app.settings import Settings
from tests.support.house import open_house, reply

T = TypeVar("T")

LEASE = timedelta(minutes=5)  # none runs out but where a rule says so


@dataclass(slots=True, kw_only=True)
class Holder:
    """One attempt, as its worker sees it. ``is_sound`` while nothing has touched its lease since it was renewed."""

    job: Started
    is_sound: bool = True
    is_of_the_past: bool = False  # SQL went back since: its attempt may be numbered anew
    won: Settlement | None = None  # what it settled, once it has


@dataclass(slots=True)
class Model:
    """What must be true, as far as answers have told."""

    rows: dict[str, Job] = field(default_factory=dict)  # as last seen
    completed: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)  # told to somebody


class FaultyHouse(RuleBasedStateMachine):
    """A real house, what is known of it, and the faults that may strike it."""

    def __init__(self, settings: Settings, clear: Callable[[], None]) -> None:
        super().__init__()
        clear()
        self._runner = asyncio.Runner()
        self._opening = open_house(
            settings.model_copy(update={"lease_s": LEASE.total_seconds(), "db_auto_upgrade": False})
        )
        self.house: Installation = self._do(self._opening.__aenter__())
        self._do(read_epoch(self.house.database))  # names the installation, as the start of every process does
        self._renew = self.house.redis.register_script(script_text("renew"))
        self.model = Model()
        self.holders: list[Holder] = []
        self.snapshot: dict[bytes, tuple[bytes, int]] | None = None
        self.ids: list[str] = []

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    # --- what goes wrong ------------------------------------------------------------------------

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9))
    def lapse(self, at: int) -> None:
        """A worker is silent for longer than its lease; it may come back."""
        holder = self._holder(at)
        holder.is_sound = False
        self._do(self._let_lapse(holder.job.id))

    async def _let_lapse(self, job_id: str) -> None:
        """Let a lease run out, if there is one."""
        await self.house.redis.zadd(keys.LEASES, {job_id: 1}, xx=True)
        await self.house.redis.delete(keys.holder(job_id))

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9))
    def crash(self, at: int) -> None:
        """A worker dies for good, perhaps between settle and acknowledge."""
        holder = self._holder(at)
        self.holders.remove(holder)
        if holder.is_sound:
            self._do(self._let_lapse(holder.job.id))

    @rule()
    def lose_redis(self) -> None:
        self._do(self._flush())

    async def _flush(self) -> None:
        self._all_unsound()
        await self.house.redis.flushdb()

    @precondition(lambda self: self.ids)
    @rule(at=st.integers(0, 9))
    def lose_entry(self, at: int) -> None:
        """Redis loses a job's entry, as if it had been evicted."""
        row = self._row(self._pick(at))
        for holder in self.holders:
            holder.is_sound = holder.is_sound and holder.job.id != row.id
        self._do(self._forget(row))

    async def _forget(self, row: Job) -> None:
        for priority in keys.PRIORITIES:
            await self.house.redis.zrem(keys.queue(row.queue, priority), row.id)

    @precondition(lambda self: self.ids)
    @rule(at=st.integers(0, 9))
    def misplace(self, at: int) -> None:
        """Redis offers a job now, whatever its row says: an old state, or arq's ``abort()``, which re-scores."""
        row = self._row(self._pick(at))
        self._do(self._offer_now(row))

    async def _offer_now(self, row: Job) -> None:
        key = keys.queue(row.queue, row.priority)
        await self.house.redis.zadd(key, {row.id: 1})
        await reply(self.house.redis.sadd(keys.BUSY, key))

    @rule()
    def remember_redis(self) -> None:
        self.snapshot = self._do(self._dump())

    async def _dump(self) -> dict[bytes, tuple[bytes, int]]:
        redis = self.house.redis
        names = [name for name in await redis.keys("*") if name != keys.EVENTS.encode()]
        return {name: (await redis.dump(name), max(await redis.pttl(name), 0)) for name in names}

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def go_back(self) -> None:
        """Redis comes back with an older state than it had."""
        self._do(self._restore_snapshot())

    async def _restore_snapshot(self) -> None:
        await self._flush()
        for name, (value, ttl) in (self.snapshot or {}).items():
            if value is not None:
                await self.house.redis.restore(name, ttl, value)

    # --- looking --------------------------------------------------------------------------------

    def _pick(self, at: int) -> str:
        return self.ids[at % len(self.ids)]

    def _holder(self, at: int) -> Holder:
        return self.holders[at % len(self.holders)]

    def _row(self, job_id: str) -> Job:
        row = self._do(self.house.reader.get(job_id))
        assert row is not None
        return row

    async def _rows(self) -> dict[str, Job]:
        page = await self.house.reader.page(JobFilter(origin="all"), limit=100)
        return {job.id: job for job in page.jobs}

    def _all_unsound(self) -> None:
        for holder in self.holders:
            holder.is_sound = False
