"""The verdict on a suspect whose process died under it. Used by :mod:`workers.suspects` alone.

Dying alone convicts, and only that. A lease that ran out says less: the machine may have been too slow, or stopped
for a while, and the lone process may live on; such a job is offered again, until it has lost MAX_INTERRUPTIONS of them.
"""

from app.clock import utc_now
from app.history.reader import Reader
from app.history.rows import Failure, Job
from app.history.writer import Settlement, Started
from app.jobs.status import Status
from app.lifecycle import Lifecycle
from app.queue.client import Claim

_STARTED = Started._fields


async def convict(claim: Claim, reader: Reader, lifecycle: Lifecycle, *, exit_code: int) -> bool:
    """End a suspect failed if it still runs under this claim, whose process is gone; return whether it did."""
    row = await reader.get(claim.id)
    if row is None or row.status is not Status.RUNNING or row.claim != claim.token:
        return False
    job = Started(**{name: getattr(row, name) for name in _STARTED})
    settlement = _conviction(row, exit_code)
    if not await lifecycle.settle(job, settlement):
        return False
    await lifecycle.acknowledge(job, settlement)
    return True


def _conviction(row: Job, exit_code: int) -> Settlement:
    manner = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    message = f"Workers that ran the job died {row.interruptions} times, then a process {manner} that ran it alone."
    return Settlement(
        id=row.id,
        attempts=row.attempts,
        claim=row.claim or "",
        status=Status.FAILED,
        outcome="interrupted",
        ended_at=utc_now(),
        error=Failure(code="worker_lost", type="WorkerLost", message=message, is_retryable=False),
        progress=row.progress,
        progress_message=row.progress_message,
        stage=row.stage,
    )
