"""Workers that are there by their heartbeat alone, for what only shows or addresses them."""

from app.clock import utc_now
from app.live.workers import Heartbeat


def heartbeat(worker_id: str) -> Heartbeat:
    """Return what a worker of the queue ``alpha`` says of itself now."""
    now = utc_now()
    return Heartbeat(
        id=worker_id,
        host="here",
        pid=1,
        queues=["alpha"],
        slots=1,
        running=0,
        processed=0,
        failed=0,
        rss=1,
        loop_lag=0.0,
        started_at=now,
        last_heartbeat=now,
    )
