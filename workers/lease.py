"""Leases: renewed for all running jobs in one call, from a thread of its own.

A busy event loop must not cost a worker its jobs, so the renewals do not depend on it. Work that holds the
GIL itself for longer than a lease belongs into a process.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from app.log import get_log
from app.queue.client import Claim
from app.queue.scripts import script_text

log = get_log()

MAX_PERIOD_S = 3.0  # between renewals; the scripts take a longer silence of all workers for an outage


class Held(NamedTuple):
    """A lease that this worker holds. ``good_until``, by the monotonic clock, counts from when it was asked for."""

    job_id: str
    queue_key: str
    token: str
    good_until: float


class LeaseKeeper(threading.Thread):
    """Renews every lease that is held, three times a lease. Start it, hold and drop jobs, then stop it.

    ``on_doubt`` and ``on_aborted`` are called from this thread: with the leases that were not renewed or have run
    out, at every turn, and with the ids that arq's ``Job.abort()`` asked to stop. Whether a doubtful job is lost is
    for its row to say.
    """

    def __init__(
        self,
        redis_url: str,
        lease_s: float,
        *,
        on_doubt: Callable[[Sequence[Held]], None],
        on_aborted: Callable[[Sequence[str]], None],
    ) -> None:
        super().__init__(name="lease-keeper", daemon=True)
        self.period_s = min(lease_s / 3, MAX_PERIOD_S)
        self._redis = Redis.from_url(redis_url, socket_timeout=self.period_s, socket_connect_timeout=self.period_s)
        self._script = self._redis.register_script(script_text("renew"))
        self._lease_s = lease_s
        self._on_doubt = on_doubt
        self._on_aborted = on_aborted
        self._held: dict[tuple[str, str], Held] = {}  # by job and token: a worker may claim what it still runs
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def hold(self, job_id: str, queue_key: str, token: str, *, asked_at: float) -> None:
        """Renew this job's lease from now on; it was asked for at ``asked_at``, by the monotonic clock."""
        with self._lock:
            good_until = asked_at + self._lease_s
            self._held[job_id, token] = Held(job_id=job_id, queue_key=queue_key, token=token, good_until=good_until)

    def hold_all(self, claims: Iterable[Claim], *, asked_at: float) -> None:
        """Renew the leases of these jobs from now on; see :meth:`hold`."""
        good_until = asked_at + self._lease_s
        fresh = {(one.id, one.token): Held(one.id, one.queue_key, one.token, good_until) for one in claims}
        with self._lock:
            self._held.update(fresh)

    def has_run_out(self, *, asked_at: float) -> bool:
        """Whether a lease that was asked for at ``asked_at`` may have run out."""
        return monotonic() >= asked_at + self._lease_s

    def drop(self, job_id: str, token: str) -> None:
        """Stop renewing this job's lease."""
        with self._lock:
            self._held.pop((job_id, token), None)

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopping.set()
        self.join(timeout=self._lease_s)
        self._redis.close()  # type: ignore[no-untyped-call]  # redis-py types it from 5.3 on

    def run(self) -> None:
        """Renew until stopped; a Redis that does not answer is asked again at the next turn."""
        while not self._stopping.wait(self.period_s):
            with self._lock:
                held = list(self._held.values())
            refused: set[str] = set()
            try:
                refused = self._renew(held)
            except (RedisError, OSError) as error:  # whatever it is: a thread that ends takes every job along
                log.warning("leases_not_renewed", held=len(held), reason=str(error))
            if doubtful := self._doubtful(refused):
                self._on_doubt(doubtful)

    def _renew(self, held: Sequence[Held]) -> set[str]:
        """Renew; return the jobs that were refused. Without a lease to renew it tells Redis that a worker lives."""
        sent_at = monotonic()
        parts = (part for one in held for part in (one.job_id, one.queue_key, one.token))
        refused, aborted = self._script(args=[int(self._lease_s * 1000), *parts])
        lost = {job_id.decode() for job_id in refused}
        renewed = [one for one in held if one.job_id not in lost]
        with self._lock:
            for one in renewed:
                if (one.job_id, one.token) in self._held:
                    self._held[one.job_id, one.token] = one._replace(good_until=sent_at + self._lease_s)
        if aborted:
            self._on_aborted([job_id.decode() for job_id in aborted])
        return lost

    def _doubtful(self, refused: set[str]) -> list[Held]:
        now = monotonic()
        with self._lock:
            return [one for one in self._held.values() if one.job_id in refused or one.good_until <= now]
