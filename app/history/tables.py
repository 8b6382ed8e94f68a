"""The tables of jobs: ``background_tasks``, one row a job, and what belongs to them.

Attempts worth a row, checkpoints, switched schedules, answers to requests that may be repeated, discards.

The column names are those of the HTTP contract, which calls a job a task; ``key`` gives each the name that
the code uses. Indexes are few because the hot path pays for each.
"""

import sqlalchemy as sa

from app.database import Json, UtcTime, metadata
from app.jobs.status import Status

_WAITING = sa.text("status = 'pending'")
_LIVE = sa.text("status IN ('pending', 'running')")
_DEAD = sa.text("status IN ('failed', 'cancelled')")
_TICK = sa.text("schedule IS NOT NULL")
_UNIQUE = sa.text("unique_key IS NOT NULL AND status IN ('pending', 'running')")
_RETRY = sa.text("retried_from IS NOT NULL")
_ENDED = sa.text("completed_at IS NOT NULL")

jobs = sa.Table(
    "background_tasks",
    metadata,
    sa.Column("task_id", sa.Text, key="id", primary_key=True),
    sa.Column("task_name", sa.Text, key="kind", nullable=False),
    sa.Column("task_type", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text),  # whom the job is about; null is all users, or nobody
    sa.Column("submitted_by", sa.Text, nullable=False),  # the owner
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("params", Json, nullable=False),
    sa.Column("max_retries", sa.Integer, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("scheduled_for", UtcTime),  # the time a caller asked for
    sa.Column("due_at", UtcTime, nullable=False),  # when it may start: scheduled_for, or the next retry
    sa.Column("expires_at", UtcTime),  # pending after this ends failed
    sa.Column("claim", sa.Text),  # the claim it runs, or last ran, under
    sa.Column("worker_id", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),  # starts; never reused
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("interruptions", sa.Integer, nullable=False, server_default="0"),  # lost leases, crashes
    sa.Column("releases", sa.Integer, nullable=False, server_default="0"),  # given back at shutdown
    sa.Column("started_at", UtcTime),  # of the latest attempt
    sa.Column("completed_at", UtcTime),
    sa.Column("progress", sa.Float, nullable=False, server_default="0"),  # 0–100
    sa.Column("progress_message", sa.Text),
    sa.Column("stage", sa.Text),
    sa.Column("result", Json),
    sa.Column("error_code", sa.Text),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("error_traceback", sa.Text),
    sa.Column("is_retryable", sa.Boolean),
    sa.Column("retried_from", sa.Text),
    sa.Column("schedule", sa.Text),  # the cron schedule that submitted it, and the tick it stands for
    sa.Column("tick_at", UtcTime),
    sa.Column("unique_key", sa.Text),  # keeps a second job of the same owner out while this one lives
    sa.Column("webhook_id", sa.Text),  # the webhook that its submit named
    sa.CheckConstraint(f"status IN ({', '.join(repr(status.value) for status in Status)})", name="status"),
    sa.CheckConstraint("priority BETWEEN 1 AND 10", name="priority"),
    sqlite_with_rowid=False,
)
# What waits and what runs, and what failed and what was cancelled, each oldest first.
_by_status = (jobs.c.status, jobs.c.created_at, jobs.c.id)
sa.Index("ix_background_tasks_live", *_by_status, sqlite_where=_LIVE, postgresql_where=_LIVE)
sa.Index("ix_background_tasks_dead", *_by_status, sqlite_where=_DEAD, postgresql_where=_DEAD)
# By owner, as the quota of what waits counts: an entry comes with the accept and goes with the start.
# SQLite looks at the status although the index implies it: it is there so that no row is read.
sa.Index(
    "ix_background_tasks_waiting",
    jobs.c.submitted_by,
    jobs.c.status,
    sqlite_where=_WAITING,
    postgresql_where=_WAITING,
)
sa.Index("ix_background_tasks_age", jobs.c.created_at, jobs.c.id)
sa.Index("ix_background_tasks_owner", jobs.c.submitted_by, jobs.c.created_at, jobs.c.id)
# Written once, when a job is accepted, for 1 µs each; one by user would cost 12, for its pages lie all over the file.
sa.Index("ix_background_tasks_queue", jobs.c.queue, jobs.c.created_at, jobs.c.id)
sa.Index("ix_background_tasks_type", jobs.c.task_type, jobs.c.created_at, jobs.c.id)
sa.Index(
    "uq_background_tasks_tick",
    jobs.c.schedule,
    jobs.c.tick_at,
    unique=True,
    sqlite_where=_TICK,
    postgresql_where=_TICK,
)
sa.Index(
    "uq_background_tasks_unique_key",
    jobs.c.submitted_by,
    jobs.c.unique_key,
    unique=True,
    sqlite_where=_UNIQUE,
    postgresql_where=_UNIQUE,
)
sa.Index("ix_background_tasks_retry", jobs.c.retried_from, sqlite_where=_RETRY, postgresql_where=_RETRY)
# Paid for once a job, at its right edge: it serves the figures of the last minutes and of a day, and retention.
sa.Index("ix_background_tasks_ended", jobs.c.completed_at, jobs.c.id, sqlite_where=_ENDED, postgresql_where=_ENDED)

attempts = sa.Table(
    "task_attempts",
    metadata,
    sa.Column("task_id", sa.Text, key="job_id", primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),  # failed, interrupted, released, completed, cancelled
    sa.Column("worker_id", sa.Text),
    sa.Column("started_at", UtcTime),
    sa.Column("ended_at", UtcTime, nullable=False),
    sa.Column("error_code", sa.Text),
    sa.Column("error_type", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("error_traceback", sa.Text),
    sqlite_with_rowid=False,
)

schedules = sa.Table(
    "schedules",  # those that somebody has switched; any other is enabled
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("is_enabled", sa.Boolean, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
)

# From where the next attempt of a live job goes on; gone when the job ends.
checkpoints = sa.Table(
    "task_checkpoints",
    metadata,
    sa.Column("task_id", sa.Text, key="job_id", primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),  # the one that wrote it
    sa.Column("state", Json, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
)

# Where outside of the disk archives were being written; gone once nothing is pending there.
archive_locations = sa.Table(
    "archive_locations",
    metadata,
    sa.Column("location", sa.Text, primary_key=True),
    sa.Column("since", UtcTime, nullable=False),
)

# What a submit with an Idempotency-Key was answered, for a day: written with its rows, in one transaction.
receipts = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),  # every caller has keys of its own
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),  # of the request: what it was sent to, and its body
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("location", sa.Text),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index("ix_idempotency_keys_created_at", receipts.c.created_at)

# Failed jobs that somebody has given up. All else about a dead letter follows from the rows of jobs.
discards = sa.Table(
    "discarded_tasks",
    metadata,
    sa.Column("task_id", sa.Text, key="job_id", primary_key=True),
    sa.Column("discarded_at", UtcTime, nullable=False),
    sa.Column("discarded_by", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# One row: which installation this is, and how often its Redis was rebuilt (``jobs:epoch`` in Redis says the same).
epochs = sa.Table(
    "epochs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("installation", sa.Text, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.CheckConstraint("id = 1", name="only"),
)

pauses = sa.Table(
    "queue_pauses",  # one row a queue from which nothing is taken
    metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("paused_at", UtcTime, nullable=False),
    sa.Column("paused_by", sa.Text, nullable=False),
)
