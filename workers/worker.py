"""The worker: a subclass of arq's that serves many priority-keyed queues with one pool of slots.

From arq come the settings, the function table, cron definitions, hooks and the run methods. Claiming,
running and finishing are ours: one call claims for all free slots, one transaction starts what was claimed,
and a job whose worker dies is somebody else's after one lease. An outage of Redis or SQL never ends a worker.
"""

import asyncio
import os
import platform
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from arq.cron import CronJob
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import ResponseError

from app.clock import new_id, utc_now
from app.errors import Conflict, NotFound
from app.history.writer import Settlement, Started
from app.installation import Installation
from app.live.control import orders
from app.live.workers import Heartbeat
from app.log import get_log
from app.queue.client import Claims
from app.steady import ANY_OUTAGE, OUTAGE_PAUSE_S, dismiss, steadily
from workers.attempt import Attempt, StopReason, refuse
from workers.closer import Closer
from workers.cron import Ticker
from workers.doubt import Doubts
from workers.families import Work
from workers.intake import Intake
from workers.lease import LeaseKeeper
from workers.limits import LimitKeeper
from workers.pool import PASSED_ON
from workers.pulse import Pulse
from workers.room import Room
from workers.running import Running
from workers.suspects import Suspects
from workers.sweep import Sweep

log = get_log()

IDLE_POLL_S = 6.0  # at most, of a worker whose bells are silent
IDLE_SPREAD = 1 / 3  # of that, less: workers spread out
_ANSWER_S = 2.0  # for Redis to answer a worker that stops at its bells
_BURST_POLL_S = 0.1  # others may still run what would come back
_WATCH_S = 0.25  # how often running attempts are held against their limits
_REREAD_S = 5.0  # how often the rows of running attempts are read again
_SETTLE_LIMIT_S = 10.0  # for released jobs to be written at shutdown; after that their leases run out

T = TypeVar("T")


class Worker(ArqWorker):
    """Runs jobs of many queues, highest priority first, in ``max_jobs`` slots.

    ``functions`` is the work by kind (:func:`workers.families.load_work`); the other options
    are arq's. ``alone_command`` starts a process for suspects (:mod:`workers.alone`).
    """

    max_stubborn = 3  # coroutines and threads that would not end; a worker with more of them is replaced

    def __init__(
        self,
        installation: Installation,
        *,
        functions: Mapping[str, Work],
        queues: Sequence[str],
        max_jobs: int,
        cron_jobs: Sequence[CronJob] = (),
        ticker: Ticker | None = None,
        burst: bool = False,
        handle_signals: bool = True,
        alone_command: Sequence[str] = (sys.executable, "-m", "workers", "--alone"),
    ) -> None:
        super().__init__(
            [func(work, name=kind) for kind, work in functions.items()],  # type: ignore[arg-type]  # ours take params
            queue_name=queues[0],
            cron_jobs=cron_jobs,
            redis_pool=installation.redis,
            burst=burst,
            max_jobs=max_jobs,
            job_completion_wait=max(1, int(installation.settings.worker_grace_s)),
            handle_signals=handle_signals,
            timezone=UTC,
        )
        if handle_signals:
            self._add_signal_handler(PASSED_ON, self.handle_sig)
        self.id = f"{platform.node()}:{os.getpid()}:{new_id()[-6:]}"
        self.queues = tuple(queues)
        self._house = installation
        self._work = functions
        self._ticker = ticker
        self._attempts: dict[str, Attempt] = {}  # one slot each
        self._doubts = Doubts(
            self._claim_of, installation.reader, limit_s=installation.settings.lease_s / 3, stop=self._stop_attempts
        )
        self._keeper = LeaseKeeper(
            installation.settings.redis_url,
            installation.settings.lease_s,
            on_doubt=self._from_thread(self._doubts.ask),
            on_aborted=self._from_thread(self._cancel_aborted),
        )
        self._suspects = Suspects(
            alone_command, keeper=self._keeper, lifecycle=installation.lifecycle, reader=installation.reader
        )
        self._pulse = Pulse(installation.redis, installation.outbox, self.id, self._heartbeat)
        self._room = Room(installation.settings.worker_children)
        self.limits = LimitKeeper(self._room, at_most=self.max_stubborn)
        self._running = Running(self._free_broken)  # the attempts, and what closes them
        self._intake = Intake(
            installation,
            worker_id=self.id,
            keeper=self._keeper,
            suspects=self._suspects,
            doubts=self._doubts,
            keep=self._running.keep,
            launch=self._launch_all,
        )
        self._closer = Closer(
            installation.lifecycle,
            keep=self._running.keep,
            on_closed=self._on_closed,
            starts_are_made=self._intake.starts_are_made,
        )
        self._is_stopping = self._is_draining = self._is_past_grace = False
        self._told_by: set[str] = set()  # whose signals have come
        self._is_told_to_stop = asyncio.Event()  # by a signal: what runs has the grace period
        self._wake = asyncio.Event()
        self._has_room = True
        self._searches = True  # look at every key at the next claim
        self._started_at = utc_now()

    # --- one worker's life ----------------------------------------------------------------------

    async def main(self) -> None:
        """Serve until told to stop (or, in burst, until nothing is due), then finish what runs."""
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._keeper.start()
        log.info("worker_started", worker_id=self.id, queues=self.queues, slots=self.max_jobs)
        try:
            await self._pulse.start()
            async with asyncio.TaskGroup() as group:
                mend, helpers = self._house.queue.mend, self._helpers().items()
                tasks = [group.create_task(steadily(name, helper, mend=mend)) for name, helper in helpers]
                try:
                    await self._serve()
                finally:
                    await self._finish()
                    await dismiss(tasks)
        finally:
            await asyncio.to_thread(self._keeper.stop)
            await self._pulse.stop()

    def _helpers(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "control": self._listen_to_orders,
            "limits": self._watch_limits,
            "rows": self._reread_rows,
            "heartbeat": self._pulse.run,
            "suspects": self._suspects.run,
            "sweep": self._sweep,
            "cron": self._tick,
        }

    async def close(self) -> None:
        """Run arq's shutdown hook; the stores belong to the installation, which closes them."""
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)

    def handle_sig(self, signum: signal.Signals) -> None:
        """Stop claiming at the first signal and let jobs finish; leave at once at the second.

        One stop of a whole pool may come twice, from outside and passed on by the parent: it counts once.
        """
        source = "parent" if signum == PASSED_ON else "outside"
        if source in self._told_by:
            log.warning("worker_left_at_once", signal=signal.Signals(signum).name)
            os._exit(128 + signum)
        self._told_by.add(source)
        self.stop()

    def stop(self) -> None:
        """Stop claiming, and end once what runs has finished or the grace period is over."""
        log.info("worker_stopping", worker_id=self.id, running=len(self._attempts))
        self._is_stopping = self._intake.is_closed = True
        self._is_told_to_stop.set()
        self._wake.set()

    def drain(self) -> None:
        """Stop claiming, and end with the last running job, however long it takes."""
        if not self._is_stopping:
            log.info("worker_draining", worker_id=self.id, running=len(self._attempts))
            self._is_stopping = self._is_draining = self._intake.is_closed = True
            self._wake.set()

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """Do what :meth:`handle_sig` does: it waits already."""
        self.handle_sig(signum)

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Submit a durable job for every definition that is due by ``n``."""
        if self._ticker is not None:
            await self._ticker.run(self.cron_jobs, n)

    # --- claiming and running -------------------------------------------------------------------

    async def _serve(self) -> None:
        pause_s = 0.0
        while not self._is_stopping:
            pause_s = await self._take(pause_s)
            is_over = self.burst and pause_s and not self._attempts and not self._intake.pending
            if is_over and await self._is_drained():
                return

    async def _take(self, within_s: float) -> float:
        """Claim for the free slots, once it is worth it or ``within_s`` are over; return how long the next may wait."""
        await self._intake.is_clear.wait()
        if within_s and (self.burst or self._look_for_room() <= 0):
            await self._rest(min(within_s, _BURST_POLL_S) if self.burst else within_s)
            within_s = 0.0
        if (free := self._look_for_room()) <= 0 or self._is_stopping:
            return IDLE_POLL_S
        try:
            claims = await self._claim(free, within_s)
        except (*ANY_OUTAGE, ResponseError) as error:
            log.warning("claiming_interrupted", reason=str(error))
            await asyncio.sleep(OUTAGE_PAUSE_S)
            return OUTAGE_PAUSE_S
        is_full = self._look_for_room() <= 0
        if claims.has_more:
            return IDLE_POLL_S if is_full else 0.0
        due_s = IDLE_POLL_S if claims.next_due is None else claims.next_due.total_seconds()
        return min(IDLE_POLL_S, max(due_s, 0.001))

    def _free_slots(self) -> int:
        """How many jobs may be claimed: one whose work is done holds no slot until more wait to settle than may run."""
        at_work = len(self._intake.pending) + len(self._attempts) - self._closer.count
        return min(self.max_jobs, 2 * self.max_jobs - self._closer.count) - at_work

    def _look_for_room(self) -> int:
        """Return how many jobs may be claimed; remember whether there are any."""
        free = self._free_slots()
        self._has_room = free > 0
        return free

    def _launch_all(self, started: Sequence[Started]) -> None:
        for job in started:
            self._launch(job)
        self._tell_of_room()  # of the slots of what was claimed and did not start

    def _launch(self, job: Started) -> None:
        job_type, work = self._house.catalogue.get(job.kind), self._work.get(job.kind)
        if job_type is None or work is None:
            self._keeper.drop(job.id, job.claim)
            self._running.keep(refuse(job, self._house.lifecycle))
        else:
            attempt = Attempt(job, job_type, work, self._house, room=self._room, on_ended=self._on_ended)
            self._attempts[job.id] = attempt
            if self._is_past_grace:
                attempt.stop(StopReason.SHUTDOWN)
            self._running.keep(attempt.run())

    def _on_ended(self, attempt: Attempt, settlement: Settlement | None) -> None:
        self._closer.close(attempt, settlement)
        self._tell_of_room()

    def _on_closed(self, attempt: Attempt, settlement: Settlement | None) -> None:
        if settlement is not None:
            self.jobs_complete += settlement.outcome == "completed"
            self.jobs_failed += settlement.outcome == "failed"
        self._free(attempt)

    def _free(self, attempt: Attempt) -> None:
        """Forget an attempt: when it is settled, or when its task ends in another way."""
        if self._attempts.get(attempt.job.id) is attempt:  # and not the next one, while this one would not end
            del self._attempts[attempt.job.id]
            self._keeper.drop(attempt.job.id, attempt.job.claim)
            self._tell_of_room()

    def _tell_of_room(self) -> None:
        """Claim again if the slots were full; with room left nothing was left to claim, and a bell tells of more."""
        is_over = self.burst and not self._attempts  # perhaps
        if is_over or (not self._has_room and self._free_slots() > 0):
            self._has_room = True
            self._wake.set()
            self._intake.expect()

    def _claim_of(self, job_id: str) -> str | None:
        attempt = self._attempts.get(job_id)
        return self._intake.pending.get(job_id) if attempt is None else attempt.job.claim

    def _free_broken(self, task: asyncio.Task[None]) -> None:
        log.error("attempt_broke", exc_info=None if task.cancelled() else task.exception())
        for attempt in [one for one in self._attempts.values() if one.task is task]:
            self._free(attempt)

    async def _finish(self) -> None:
        self._suspects.hang_up()
        await self._let_finish()
        self._is_past_grace = True
        self._stop_attempts(list(self._attempts), StopReason.SHUTDOWN)
        await self._running.until_idle(_SETTLE_LIMIT_S)
        await self._suspects.gone(within_s=_SETTLE_LIMIT_S)
        log.info("worker_stopped", worker_id=self.id, completed=self.jobs_complete, failed=self.jobs_failed)

    async def _let_finish(self) -> None:
        """Wait for what runs: to its end in a drain, for the grace period from a signal on."""
        while self._is_draining and self._running and not self._is_told_to_stop.is_set():  # noqa: ASYNC110  # two things
            await asyncio.sleep(_WATCH_S)
        await self._running.until_idle(self._house.settings.worker_grace_s)

    async def _claim(self, want: int, within_s: float) -> Claims:
        """Claim at once, or at the bell within some seconds; sooner if this worker is woken."""
        if self._wake.is_set() or not within_s:
            self._wake.clear()
            claims = await self._intake.take(self.queues, want=want, search=self._searches)
            self._searches = False
            return claims
        is_idle = within_s >= IDLE_POLL_S
        limit_s = IDLE_POLL_S * random.uniform(1 - IDLE_SPREAD, 1)  # noqa: S311  # jitter, not a secret
        taking = asyncio.create_task(
            self._intake.take_at_bell(self.queues, want=want, search=is_idle, at_most_s=limit_s)
        )
        taking.add_done_callback(lambda task: task.cancelled() or task.exception())  # looked at, whoever left before
        woken = asyncio.create_task(self._wake.wait())
        try:
            timer_s = None if is_idle else within_s
            await asyncio.wait((taking, woken), timeout=timer_s, return_when=asyncio.FIRST_COMPLETED)
            # A claim that was left alone in Redis would take jobs for nobody, so only a stop does that.
            async with asyncio.timeout(_ANSWER_S if self._is_stopping else None):
                if not taking.done():
                    await self._house.queue.wake(self.id)
                return await taking
        finally:
            taking.cancel()
            woken.cancel()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._searches = self._searches or seconds >= IDLE_POLL_S
        self._wake.clear()

    async def _is_drained(self) -> bool:
        await self._running.until_idle(_BURST_POLL_S)  # what was settled last is acknowledged
        stats = await self._house.queue.stats(self.queues)
        return not any(queue.ready or queue.running for queue in stats)

    # --- helpers, each for ever -----------------------------------------------------------------

    async def _listen_to_orders(self) -> None:
        async for verb, subject in orders(self._house.redis):
            if verb == "cancel":
                self._stop_attempts([subject], StopReason.CANCELLED)
            elif verb == "drain" and subject == self.id:
                self.drain()

    async def _watch_limits(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            for attempt, task in self.limits.abandoned(self._attempts.values()):
                self._running.leave(task)
                attempt.abandon()
            if self.limits.has_too_many:
                self.drain()

    async def _reread_rows(self) -> None:
        """Find cancels and takeovers that nobody told of."""
        while True:
            await asyncio.sleep(_REREAD_S)
            await self._doubts.stop_lost({job_id: attempt.job.claim for job_id, attempt in self._attempts.items()})

    async def _sweep(self) -> None:
        await Sweep(self._house, worker_id=self.id).run()

    async def _tick(self) -> None:
        if self._ticker is None:
            return
        await self._ticker.catch_up(self._house.reader, utc_now())
        while True:
            await self.run_cron(utc_now(), 0)
            await asyncio.sleep(1.0 - utc_now().microsecond / 1e6)

    # --- small things ---------------------------------------------------------------------------

    def _stop_attempts(self, ids: Iterable[str], reason: StopReason) -> None:
        for attempt in [self._attempts[job_id] for job_id in ids if job_id in self._attempts]:
            attempt.stop(reason)

    def _cancel_aborted(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            self._running.keep(self._cancel(job_id))

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._house.lifecycle.cancel(job_id)
        except (NotFound, Conflict, *ANY_OUTAGE) as error:
            log.info("abort_not_done", job_id=job_id, reason=str(error))

    def _from_thread(self, call: Callable[[Sequence[T]], None]) -> Callable[[Sequence[T]], None]:
        def hand_over(found: Sequence[T]) -> None:
            self.loop.call_soon_threadsafe(call, found)

        return hand_over

    def _heartbeat(self, rss: int, lag_s: float) -> Heartbeat:
        return Heartbeat(
            id=self.id,
            host=platform.node(),
            pid=os.getpid(),
            queues=list(self.queues),
            slots=self.max_jobs,
            running=len(self._attempts),
            processed=self.jobs_complete + self.jobs_failed,
            failed=self.jobs_failed,
            rss=rss,
            loop_lag=lag_s,
            started_at=self._started_at,
            last_heartbeat=utc_now(),
        )
