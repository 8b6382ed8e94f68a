"""The one insert that every accept goes through: one statement for any number of jobs. Used by the writers of history.

A row travels as a tuple of a batch (:class:`app.database.Rows`), its JSON as text: SQLAlchemy's own executemany
took half as long again for a row, most of it holding the interpreter that the API answers with.
"""

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from app.database import Rows, UtcTime
from app.history.rows import NewJob
from app.history.tables import jobs
from app.jobs.status import Status

_ROWS = 1000  # of one statement: a longer one would build a document of megabytes
_NAMES = tuple(NewJob.__dataclass_fields__)
_COLUMNS = ", ".join(jobs.c[name].name for name in _NAMES)
_PENDING = Status.PENDING.value


def _type(column: sa.Column[Any]) -> str:
    if isinstance(column.type, UtcTime):
        return "timestamptz"
    return "integer" if isinstance(column.type, sa.Integer) else "text"


_BATCH = Rows(**{f"row_{name}": _type(jobs.c[name]) for name in _NAMES})
_STATEMENTS = {
    dialect: sa.text(
        f"INSERT INTO background_tasks ({_COLUMNS}, status) "  # noqa: S608  # names of our own columns
        f"SELECT {', '.join(f'row_{name}' for name in _NAMES)}, '{_PENDING}' FROM {_BATCH.sql(dialect)} "
        "WHERE true ON CONFLICT (task_id) DO NOTHING"
    )
    for dialect in ("sqlite", "postgresql")
}


def insert_jobs(connection: sa.Connection, accepted: Sequence[NewJob]) -> None:
    """Insert jobs; those that are there already stay as they are, so that it may be sent again."""
    dialect = connection.dialect.name
    for at in range(0, len(accepted), _ROWS):
        rows = [_row(job) for job in accepted[at : at + _ROWS]]
        connection.execute(_STATEMENTS[dialect], _BATCH.values(dialect, rows))


def _row(job: NewJob) -> tuple[Any, ...]:
    """Return the values of a job in the order of ``_NAMES``."""
    return (
        job.id,
        job.kind,
        job.task_type,
        job.queue,
        job.user_id,
        job.submitted_by,
        job.priority,
        orjson.dumps(job.params).decode(),
        job.max_retries,
        job.created_at,
        job.due_at,
        job.scheduled_for,
        job.expires_at,
        job.retried_from,
        job.schedule,
        job.tick_at,
        job.unique_key,
        job.webhook_id,
    )
