"""A stateful model of a job's life (Hypothesis): real Redis, real SQL, real lifecycle; only time is made up.

A *holder* is an attempt as the worker that runs it sees it. Leases are long, so that one runs out only where
the machine says so (``lapse``); Redis loses single entries, everything, or goes back to an older state, and so
does SQL, which may also be away; commit replies and acknowledges get lost. Whatever happened, at the end every
job has ended, once, and Redis is empty.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from app.clock import new_id, utc_now
from app.errors import Conflict
from app.history.epochs import read_epoch
from app.history.rows import Job
from app.history.tables import jobs
from app.history.writer import ALONE_AT, MAX_INTERRUPTIONS, Settlement, StartRequest
from app.jobs.status import LIVE, TRANSITIONS, Status
from app.queue import keys
from app.queue.client import Claim, Claims
from app.queue.epoch import Epochs
from tests.model.faults import LEASE, Holder
from tests.model.sql_faults import SqlFaults
from tests.support.house import OOPS, QUEUES, count, ending, note, order, reply
from workers.sweep import Sweep
from workers.verdict import convict

_MOST_JOBS = 3
_LEASE_MS = int(LEASE.total_seconds() * 1000)
ROUNDS = 40  # of claims and sweeps, after which whatever is still live counts as stuck


class JobMachine(SqlFaults):
    """Submit, claim, start, renew, settle, acknowledge, cancel, retry and sweep, in any order."""

    # --- the front of the house -----------------------------------------------------------------

    @precondition(lambda self: len(self.ids) < _MOST_JOBS)
    @rule(
        kind=st.sampled_from([note, count]),
        priority=st.sampled_from([2, 5, 9]),
        max_retries=st.integers(0, 2),
        delay_s=st.sampled_from([0, 0, 0, 3600]),
        interruptions=st.sampled_from([0, 0, ALONE_AT]),
    )
    def submit(self, kind: Any, priority: int, max_retries: int, delay_s: int, interruptions: int) -> None:
        later = utc_now() + timedelta(seconds=delay_s) if delay_s else None
        asked = order(kind, priority=priority, max_retries=max_retries, scheduled_for=later)
        (job,) = self._do(self.house.lifecycle.submit([asked]))
        self.ids.append(job.id)
        if interruptions:
            self._do(self._make_suspect(job.id, interruptions))

    async def _make_suspect(self, job_id: str, interruptions: int) -> None:
        past = {"interruptions": interruptions, "attempts": interruptions}
        async with self.house.database.write() as connection:
            await connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(past))

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
        """Claim and start, alone; a start whose reply is lost is sent again."""
        self._do(self._work(want, reply_is_lost=reply_is_lost))

    @rule(want=st.integers(1, 3), is_handed_over=st.booleans(), has_room=st.booleans())
    def work_in_company(self, want: int, is_handed_over: bool, has_room: bool) -> None:
        """Claim and start beside other jobs: suspects go to a process of their own, or their worker dies first."""
        self._do(self._work_in_company(want, is_handed_over, has_room))

    async def _work_in_company(self, want: int, is_handed_over: bool, has_room: bool) -> None:
        claims = await self.house.queue.claim(QUEUES, want=want, token=new_id(), search=True)
        aside: list[Claim] = []

        def take_aside(claim: Claim) -> bool:
            if has_room:
                aside.append(claim)
            return has_room

        for holder in await self._started(claims, take_aside):
            assert not ALONE_AT <= holder.job.interruptions < MAX_INTERRUPTIONS, "a suspect ran in company"
        for claim in aside:
            if is_handed_over:
                await self._started(replace(claims, claims=[claim]), None)
            else:
                await self._let_lapse(claim.id)

    async def _work(self, want: int, *, reply_is_lost: bool = False) -> list[Holder]:
        claims = await self.house.queue.claim(QUEUES, want=want, token=new_id(), search=True)
        if reply_is_lost:
            requests = [StartRequest(id=one.id, claim=one.token, dead=one.dead) for one in claims.claims]
            await self.house.lifecycle._writer.start(requests, worker_id="lost", now=claims.now)
        return await self._started(claims, None)

    async def _started(self, claims: Claims, take_aside: Callable[[Claim], bool] | None) -> list[Holder]:
        due = {row.id: row.due_at for row in (await self._rows()).values()}
        started = await self.house.lifecycle.start(claims, worker_id="the-worker", take_aside=take_aside)
        for job in started:
            assert due[job.id] <= claims.now, "a job was started before its time"
            assert job.id not in self.model.cancelled, "a cancelled job was started"
            others = [holder for holder in self.holders if holder.job.id == job.id]
            assert not any(holder.is_sound and holder.won is None for holder in others), "two sound holders of one job"
            known = [holder.job.attempts for holder in others if not holder.is_of_the_past]
            assert all(attempts < job.attempts for attempts in known), "an attempt number was used again"
        fresh = [Holder(job=job) for job in started]
        self.holders += fresh
        return fresh

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9))
    def renew(self, at: int) -> None:
        """A renewal is refused if another claim has the job, or if Redis was set back to where it waits."""
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
            assert not (lost and holder.is_sound), "the only holder of a job lost its lease by renewing it"
            assert await self.house.reader.running_under({job.id: job.claim}) == {job.id}, "the row did not help"
            holder.is_sound = True
        if lost:
            holder.is_sound = False

    @precondition(lambda self: self.holders)
    @rule(
        at=st.integers(0, 9),
        status=st.sampled_from([Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.PENDING]),
        outcome=st.sampled_from(["failed", "released"]),
        is_acknowledged=st.booleans(),
        is_late=st.sampled_from([False, False, True]),
    )
    def settle(self, at: int, status: Status, outcome: str, is_acknowledged: bool, is_late: bool) -> None:
        """An attempt ends, perhaps while SQL is out; that wins exactly if the row still is its own."""
        holder = self._holder(at)
        before = self._row(holder.job.id)
        is_mine = before.status is Status.RUNNING and (before.attempts, before.claim) == _fence(holder)
        settlement = self._ending(holder, status, outcome)
        is_same_again = holder.won is not None and (before.attempts, before.claim) == _fence(holder)
        won = self._do(self.settle_late(holder, settlement) if is_late else self._settle(holder, settlement))
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

    async def _settle(self, holder: Holder, settlement: Settlement) -> bool:
        return await self.house.lifecycle.settle(holder.job, settlement)

    def _ending(self, holder: Holder, status: Status, outcome: str) -> Settlement:
        if holder.won is not None:
            return holder.won  # the same statement, sent again
        if status is Status.PENDING and outcome == "released":
            return ending(holder.job, status, outcome="released", error=None, due_at=None)
        if status is Status.PENDING:
            return ending(holder.job, status, outcome="failed", error=OOPS, due_at=utc_now())
        return ending(holder.job, status)

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9))
    def convict(self, at: int) -> None:
        """The process of a lone job was seen to die; that ends the job exactly if it still ran there."""
        job = self._holder(at).job
        before = self._row(job.id)
        is_mine = before.status is Status.RUNNING and (before.attempts, before.claim) == (job.attempts, job.claim)
        claim = Claim(id=job.id, queue_key="", token=job.claim, dead=None, is_aborted=False)
        told = self._do(convict(claim, self.house.reader, self.house.lifecycle, exit_code=-9))
        assert told == is_mine, "the verdict told an untruth"
        after = self._row(job.id)
        assert after.interruptions == before.interruptions + is_mine
        assert after == before if not is_mine else after.status is Status.FAILED
        self.holders = [one for one in self.holders if one.job is not job]

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

    @rule()
    def rebuild(self) -> None:
        """A worker finds that Redis is not what it was: it walks under a nonce, and drops what has no live row."""
        self._do(self._rebuild())

    async def _rebuild(self) -> None:
        sweep = Sweep(self.house, worker_id="the-worker")
        await sweep.rebuild()
        await sweep.drop_ghosts()
        row_of = await self._rows()
        stray = [name for found in (await self._left()).values() for name in found if name not in row_of]
        assert not stray, "an entry without a row"

    @precondition(lambda self: self.ids)
    @rule(is_flushed=st.booleans())
    def rebuild_half(self, is_flushed: bool) -> None:
        """Redis is emptied while a rebuild walks, or another one begins: the first one's pages count no more."""
        self._do(self._rebuild_half(is_flushed))

    async def _rebuild_half(self, is_flushed: bool) -> None:
        epochs, page = Epochs(self.house.redis, lease=LEASE), await self.house.reader.live_page(before=None)
        name = (await read_epoch(self.house.database)).installation
        await epochs.begin(name, 1, "first", [])
        if is_flushed:
            await self._flush()
        else:
            await epochs.begin(name, 2, "second", [])
        assert await self.house.lifecycle.restore(page, walk="first") == -1, "a page of a walk that is over counted"
        assert not await epochs.end("first", "run"), "a walk that is over came to its end"

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
        await self._rebuild()
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
