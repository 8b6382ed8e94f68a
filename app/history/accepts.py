"""The one insert that every accept goes through: one statement for any number of jobs. Used by the writers of history.

A row travels as a tuple of a batch (:class:`app.database.Rows`), its JSON as text: SQLAlchemy's own executemany
took half as long again for a row, most of it holding the interpreter that the API answers with. Columns that no job
of a batch has anything for are left out, each of which would cost SQLite half a microsecond a row.
"""

from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any

import orjson
import sqlalchemy as sa

from app.database import Rows, UtcTime
from app.history.rows import NewJob
from app.history.statements import Statement
from app.history.tables import jobs
from app.jobs.status import Status

_ROWS = 1000  # of one statement: a longer one would build a document of megabytes
_NAMES = tuple(NewJob.__dataclass_fields__)
_PENDING = Status.PENDING.value


def _type(column: sa.Column[Any]) -> str:
    if isinstance(column.type, UtcTime):
        return "timestamptz"
    return "integer" if isinstance(column.type, sa.Integer) else "text"


class _Insert:
    """The statement that fills some columns of the table, for either dialect."""

    def __init__(self, names: Sequence[str]) -> None:
        self._rows = Rows(**{f"row_{name}": _type(jobs.c[name]) for name in names})
        self._count = len(names)
        columns, values = (", ".join(part) for part in ((jobs.c[name].name for name in names), self._rows.names))
        self._sql = {
            dialect: Statement(
                f"INSERT INTO background_tasks ({columns}, status) "  # noqa: S608  # names of our own columns
                f"SELECT {values}, '{_PENDING}' FROM {self._rows.sql(dialect)} "
                "WHERE true ON CONFLICT (task_id) DO NOTHING"
            )
            for dialect in ("sqlite", "postgresql")
        }

    def run(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows, of which the first columns are these; the others hold nothing."""
        dialect = connection.dialect.name
        self._sql[dialect].run(connection, self._rows.values(dialect, [row[: self._count] for row in rows]))


_PLAIN = tuple(name for name, field in NewJob.__dataclass_fields__.items() if field.default is MISSING)
_INSERT, _INSERT_PLAIN = _Insert(_NAMES), _Insert(_PLAIN)


def insert_jobs(connection: sa.Connection, accepted: Sequence[NewJob]) -> None:
    """Insert jobs; those that are there already stay as they are, so that it may be sent again."""
    for at in range(0, len(accepted), _ROWS):
        rows = [_row(job) for job in accepted[at : at + _ROWS]]
        is_plain = not any(any(row[len(_PLAIN) :]) for row in rows)
        (_INSERT_PLAIN if is_plain else _INSERT).run(connection, rows)


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
