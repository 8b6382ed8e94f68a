"""The status machine of a job, as data.

``pending → running → completed | failed | cancelled``, and back from running to pending for a retry, a
release at shutdown or a rescue. Nothing leaves a final status. The guards that enforce this are SQL
(``app/history/writer.py``); this table is what they and the tests agree on.
"""

from enum import StrEnum


class Status(StrEnum):
    """Where a job is in its life; the only five words that are stored."""

    PENDING = "pending"  #: accepted; waits for a worker, a time or a retry
    RUNNING = "running"  #: a worker holds it under a claim
    COMPLETED = "completed"  #: ended with a result
    FAILED = "failed"  #: ended with an error; also a dead letter
    CANCELLED = "cancelled"  #: ended because somebody said so

    @property
    def is_final(self) -> bool:
        """Whether the job has ended for good."""
        return self not in LIVE

    @property
    def rank(self) -> int:
        """Order of statuses inside one attempt; a follower drops an event of a lower rank."""
        return {Status.PENDING: 0, Status.RUNNING: 1}.get(self, 3)


LIVE = frozenset({Status.PENDING, Status.RUNNING})
FINAL = frozenset(Status) - LIVE

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.CANCELLED, Status.FAILED}),
    Status.RUNNING: frozenset({Status.PENDING, Status.RUNNING, *FINAL}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
