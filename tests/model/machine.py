"""A stateful model of a job's life (Hypothesis): real Redis, real SQL, real lifecycle; only time is made up.

A *holder* is an attempt as the worker that runs it sees it. Leases are long, so that one runs out only where
the machine says so (``lapse``); Redis loses single entries, everything, or goes back to an older state; commit
replies and acknowledges get lost. Whatever happened, at the end every job has ended, once, and Redis is empty.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.clock import new_id, utc_now
from app.errors import Conflict
from app.history.reader import JobFilter
from app.history.rows import Job
from app.history.writer import Settlement, Started, StartRequest
from app.installation import Installation
from app.jobs.status import LIVE, TRANSITIONS, Status
from app.queue import keys
from app.queue.scripts import script_text
from app.settings import Settings
from tests.support.house import OOPS, QUEUES, count, ending, note, open_house, order, reply

T = TypeVar("T")

_MOST_JOBS = 3
_LEASE_MS = 300_000
ROUNDS = 40  # of claims and sweeps, after which whatever is still live counts as stuck


@dataclass(slots=True, kw_only=True)
class Holder:
    """One attempt, as its worker sees it. ``is_sound`` while nothing has touched its lease since it was renewed."""

    job: Started
    is_sound: bool = True
    won: Settlement | None = None  # what it settled, once it has


@dataclass(slots=True)
class Model:
    """What must be true, as far as answers have told."""

    rows: dict[str, Job] = field(default_factory=dict)  # as last seen
    completed: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)  # told to somebody


class JobMachine(RuleBasedStateMachine):
    """Submit, claim, start, renew, settle, acknowledge, cancel, retry and sweep, in any order."""

    def __init__(self, settings: Settings, clear: Callable[[], None]) -> None:
        super().__init__()
        clear()
        self._runner = asyncio.Runner()
        self._opening = open_house(settings.model_copy(update={"lease_s": _LEASE_MS / 1000, "db_auto_upgrade": False}))
        self.house: Installation = self._do(self._opening.__aenter__())
        self._renew = self.house.redis.register_script(script_text("renew"))
        self.model = Model()
        self.holders: list[Holder] = []
        self.snapshot: dict[bytes, tuple[bytes, int]] | None = None
        self.ids: list[str] = []

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    # --- the front of the house -----------------------------------------------------------------

    @precondition(lambda self: len(self.ids) < _MOST_JOBS)
    @rule(
        kind=st.sampled_from([note, count]),
        priority=st.sampled_from([2, 5, 9]),
        max_retries=st.integers(0, 2),
        delay_s=st.sampled_from([0, 0, 0, 3600]),
    )
    def submit(self, kind: Any, priority: int, max_retries: int, delay_s: int) -> None:
        later = utc_now() + timedelta(seconds=delay_s) if delay_s else None
        asked = order(kind, priority=priority, max_retries=max_retries, scheduled_for=later)
        (job,) = self._do(self.house.lifecycle.submit([asked]))
        self.ids.append(job.id)

    @precondition(lambda self: len(self.ids) < _MOST_JOBS)
    @rule(minute=st.integers(0, 1))
    def tick(self, minute: int) -> None:
        """Two workers submit the same tick: one row."""
        at = utc_now().replace(hour=0, minute=minute, second=0, microsecond=0)
        asked = order(note, schedule="hourly", tick_at=at)
        known = {row.tick_at for row in self.model.rows.values() if row.schedule}
        first, second = (self._do(self.house.lifecycle.submit_tick(asked)) for _ in range(2))
        assert (first is None) == (at in known), "a tick ran twice, or not at all"
        assert second is None, "a tick ran twice"
        self.ids += [first.id] if first else []

    @precondition(lambda self: self.ids)
    @rule(at=st.integers(0, 9), spares_running=st.booleans())
    def cancel(self, at: int, spares_running: bool) -> None:
        job_id = self._pick(at)
        before = self._row(job_id)
        may = before.status is Status.PENDING or (before.status is Status.RUNNING and not spares_running)
        try:
            told = self._do(self.house.lifecycle.cancel(job_id, include_running=not spares_running))
        except Conflict:
            assert not may, f"a {before.status} job could not be cancelled"
        else:
            assert may, f"a {before.status} job was cancelled"
            assert told.status is Status.CANCELLED
            self.model.cancelled.add(job_id)

    @precondition(lambda self: 0 < len(self.ids) < _MOST_JOBS)
    @rule(at=st.integers(0, 9))
    def retry(self, at: int) -> None:
        before = self._row(self._pick(at))
        try:
            again = self._do(self.house.lifecycle.retry(before.id, owner="ada"))
        except Conflict:
            assert before.status not in {Status.FAILED, Status.CANCELLED}
        else:
            assert before.status in {Status.FAILED, Status.CANCELLED}, f"a {before.status} job was retried"
            assert again.retried_from == before.id
            self.ids.append(again.id)

    @precondition(lambda self: self.ids)
    @rule(at=st.integers(0, 9), priority=st.sampled_from([1, 5, 10]))
    def reprioritise(self, at: int, priority: int) -> None:
        before = self._row(self._pick(at))
        try:
            self._do(self.house.lifecycle.reprioritise(before.id, priority=priority))
        except Conflict:
            assert before.status is not Status.PENDING
        else:
            assert before.status is Status.PENDING, f"a {before.status} job got another priority"

    # --- the engine room ------------------------------------------------------------------------

    @rule(want=st.integers(1, 3), reply_is_lost=st.booleans())
    def work(self, want: int, reply_is_lost: bool) -> None:
        """Claim and start; a start whose reply is lost is sent again."""
        self._do(self._work(want, reply_is_lost=reply_is_lost))

    async def _work(self, want: int, *, reply_is_lost: bool = False) -> list[Holder]:
        claims = await self.house.queue.claim(QUEUES, want=want, token=new_id(), search=True)
        due = {row.id: row.due_at for row in (await self._rows()).values()}
        if reply_is_lost:
            requests = [StartRequest(id=one.id, claim=one.token, dead=one.dead) for one in claims.claims]
            await self.house.lifecycle._writer.start(requests, worker_id="lost", now=claims.now)
        started = await self.house.lifecycle.start(claims, worker_id="the-worker")
        for job in started:
            assert due[job.id] <= claims.now, "a job was started before its time"
            assert job.id not in self.model.cancelled, "a cancelled job was started"
            others = [holder for holder in self.holders if holder.job.id == job.id]
            assert not any(holder.is_sound and holder.won is None for holder in others), "two sound holders of one job"
            assert all(holder.job.attempts < job.attempts for holder in others), "an attempt number was used again"
        fresh = [Holder(job=job) for job in started]
        self.holders += fresh
        return fresh

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9))
    def renew(self, at: int) -> None:
        """A renewal is refused only if another claim has the job."""
        holder = self._holder(at)
        if holder.won is None:
            self._do(self._renewed(holder))

    async def _renewed(self, holder: Holder) -> None:
        job = holder.job
        row = await self.house.reader.get(job.id)
        assert row is not None
        args: list[str | int] = [_LEASE_MS, job.id, keys.queue(job.queue, row.priority), job.claim]
        lost, _ = await self._renew(args=args)
        rivals = [one for one in self.holders if one.job.id == job.id and one.job.attempts > job.attempts]
        if row.status is Status.RUNNING and row.claim == job.claim and not rivals:
            assert not lost, "the only holder of a job lost its lease by renewing it"
            holder.is_sound = True
        if lost:
            holder.is_sound = False

    @precondition(lambda self: self.holders)
    @rule(
        at=st.integers(0, 9),
        status=st.sampled_from([Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.PENDING]),
        outcome=st.sampled_from(["failed", "released"]),
        is_acknowledged=st.booleans(),
    )
    def settle(self, at: int, status: Status, outcome: str, is_acknowledged: bool) -> None:
        """An attempt ends; that wins exactly if the row still is its own."""
        holder = self._holder(at)
        before = self._row(holder.job.id)
        is_mine = before.status is Status.RUNNING and (before.attempts, before.claim) == _fence(holder)
        settlement = self._ending(holder, status, outcome)
        is_same_again = holder.won is not None and (before.attempts, before.claim) == _fence(holder)
        won = self._do(self.house.lifecycle.settle(holder.job, settlement))
        assert won == (is_mine or (is_same_again and before.status is settlement.status)), "the fence told an untruth"
        if not is_mine:
            assert self._row(holder.job.id) == before, "a stale holder changed a row"
        elif settlement.status is Status.COMPLETED:
            self.model.completed[holder.job.id] = self.model.completed.get(holder.job.id, 0) + 1
        if won:
            holder.won = settlement
        if won and is_acknowledged:
            self._do(self.house.lifecycle.acknowledge(holder.job, settlement))
        elif not won and is_acknowledged:
            self._do(self.house.lifecycle.stand_down(holder.job))

    def _ending(self, holder: Holder, status: Status, outcome: str) -> Settlement:
        if holder.won is not None:
            return holder.won  # the same statement, sent again
        if status is Status.PENDING and outcome == "released":
            return ending(holder.job, status, outcome="released", error=None, due_at=None)
        if status is Status.PENDING:
            return ending(holder.job, status, outcome="failed", error=OOPS, due_at=utc_now())
        return ending(holder.job, status)

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9), state=st.integers(0, 99))
    def checkpoint(self, at: int, state: int) -> None:
        holder = self._holder(at)
        before = self._row(holder.job.id)
        is_mine = before.status is Status.RUNNING and (before.attempts, before.claim) == _fence(holder)
        kept = self._do(self.house.reader.checkpoint(holder.job.id))
        assert self._do(self.house.lifecycle.checkpoint(holder.job, state)) == is_mine, "a stale holder's checkpoint"
        assert self._do(self.house.reader.checkpoint(holder.job.id)) == (state if is_mine else kept)

    @rule()
    def sweep(self) -> None:
        self._do(self._sweep())

    async def _sweep(self) -> None:
        await self.house.lifecycle.restore(await self.house.reader.live_page(before=None))

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

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def every_job_is_where_it_may_be(self) -> None:
        if not hasattr(self, "house"):
            return
        rows = self._do(self._rows())
        assert set(rows) == set(self.ids), "a job was lost, or made up"
        for job_id, row in rows.items():
            before = self.model.rows.get(job_id)
            if before is not None:
                _check_step(before, row)
            completed = self.model.completed.get(job_id, 0)
            assert completed <= 1, "a job was completed twice"
            assert (completed == 1) == (row.status is Status.COMPLETED), "a completion that nobody wrote, or lost"
            if job_id in self.model.cancelled:
                assert row.status is Status.CANCELLED, "a cancelled job lives on"
        self.model.rows = rows

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        try:
            self._do(self._drain())
            self.every_job_is_where_it_may_be()
        finally:
            self._do(self._opening.__aexit__(None, None, None))
            self._runner.close()

    async def _drain(self) -> None:
        """Every worker dies; a sound one takes over, with the sweep beside it, until nothing is live."""
        self._all_unsound()
        live: list[Job] = []
        left: dict[str, list[str]] = {}
        for _ in range(ROUNDS):
            live = [row for row in (await self._rows()).values() if row.status in LIVE]
            left = await self._left()
            is_tidy = sorted(one for found in left.values() for one in found) == sorted(row.id for row in live)
            if is_tidy and all(row.due_at > utc_now() + timedelta(minutes=1) for row in live):
                return  # what waits for its time stands in its queue, once; nothing else does
            await self._sweep()
            for raw in await self.house.redis.zrange(keys.LEASES, 0, -1):
                await self._let_lapse(raw.decode())
            for holder in await self._work(9):
                settlement = ending(holder.job)
                holder.won = settlement
                assert await self.house.lifecycle.settle(holder.job, settlement), "a sound holder lost"
                self.model.completed[holder.job.id] = self.model.completed.get(holder.job.id, 0) + 1
                await self.house.lifecycle.acknowledge(holder.job, settlement)
        raise AssertionError(f"stuck: {[(row.id, row.status, row.due_at) for row in live]}; Redis has {left}")

    async def _left(self) -> dict[str, list[str]]:
        """Return what Redis holds: the members of each queue, the leases and the claims."""
        redis = self.house.redis
        held = {name.decode(): await redis.zrange(name, 0, -1) for name in await redis.keys(keys.QUEUE + "*")}
        held["leases"] = await redis.zrange(keys.LEASES, 0, -1)
        held["claims"] = await reply(redis.hkeys(keys.CLAIMS))
        return {name: [raw.decode() for raw in found] for name, found in held.items() if found}

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


def _fence(holder: Holder) -> tuple[int, str]:
    return holder.job.attempts, holder.job.claim


def _check_step(before: Job, row: Job) -> None:
    if before.status.is_final:
        assert row == before, "an ended job changed"
    if before.status is not row.status:
        # Several steps may lie between two looks; none leads out of where the machine says.
        reached = set(TRANSITIONS[before.status])
        reached |= {further for step in reached for further in TRANSITIONS[step]}
        assert row.status in reached, f"{before.status} became {row.status}"
    assert row.attempts >= before.attempts, "attempts went back"
    counted = row.failures + row.interruptions + row.releases
    assert row.attempts >= counted, "more attempts ended than were started"
