"""Leases: renewed for all running jobs in one call, from a thread of its own.

A busy event loop must not cost a worker its jobs, so the renewals do not depend on it. Work that holds the
GIL itself for longer than a lease belongs into a process.
"""

import threading
from collections.abc import Callable, Sequence

from redis import Redis

from app.log import get_log
from app.queue.connect import OUTAGES
from app.queue.scripts import script_text

log = get_log()


class LeaseKeeper(threading.Thread):
    """Renews every lease that is held, three times a lease. Start it, hold and drop jobs, then stop it.

    ``on_lost`` and ``on_aborted`` are called from this thread with job ids: those that another claim has by
    now, and those that arq's ``Job.abort()`` asked to stop.
    """

    def __init__(
        self,
        redis_url: str,
        lease_s: float,
        *,
        on_lost: Callable[[Sequence[str]], None],
        on_aborted: Callable[[Sequence[str]], None],
    ) -> None:
        super().__init__(name="lease-keeper", daemon=True)
        self._redis = Redis.from_url(redis_url, socket_timeout=lease_s / 3, socket_connect_timeout=lease_s / 3)
        self._script = self._redis.register_script(script_text("renew"))
        self._lease_s = lease_s
        self._on_lost = on_lost
        self._on_aborted = on_aborted
        self._held: dict[str, tuple[str, str, str]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def hold(self, job_id: str, queue_key: str, token: str) -> None:
        """Renew this job's lease from now on."""
        with self._lock:
            self._held[job_id] = (job_id, queue_key, token)

    def drop(self, job_id: str) -> None:
        """Stop renewing this job's lease."""
        with self._lock:
            self._held.pop(job_id, None)

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopping.set()
        self.join(timeout=self._lease_s)
        self._redis.close()

    def run(self) -> None:
        """Renew until stopped; a Redis that does not answer is asked again at the next turn."""
        while not self._stopping.wait(self._lease_s / 3):
            try:
                self._renew()
            except OUTAGES as error:
                log.warning("leases_not_renewed", held=len(self._held), reason=str(error))

    def _renew(self) -> None:
        with self._lock:
            held = list(self._held.values())
        if not held:
            return
        lost, aborted = self._script(args=[int(self._lease_s * 1000), *(part for job in held for part in job)])
        if lost:
            self._on_lost([job_id.decode() for job_id in lost])
        if aborted:
            self._on_aborted([job_id.decode() for job_id in aborted])
