"""Statements as both databases take them, and those that start and settle jobs. Used by the writers of history."""

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.clock import iso
from app.database import Rows, UtcTime
from app.history.tables import jobs
from app.sqlite import driver_of

# What a start tells of a job: the first fields of writer.Started, in their order.
STARTED = (
    "id",
    "kind",
    "queue",
    "priority",
    "params",
    "user_id",
    "submitted_by",
    "attempts",
    "failures",
    "interruptions",
    "max_retries",
    "created_at",
    "due_at",
)


class Found(Protocol):
    """What a statement found or did, whoever ran it."""

    @property
    def rowcount(self) -> int:
        """How many rows it wrote."""

    def fetchall(self) -> Sequence[Sequence[Any]]:
        """Return every row."""


class Statement:
    """One text for both databases, with ``:names``. SQLite's own driver runs it, where a connection has that.

    SQLAlchemy's way to the driver costs a single job as much as the work it asks for.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._clause = sa.text(text)
        if ":now" in text:
            self._clause = self._clause.bindparams(sa.bindparam("now", type_=UtcTime))

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> Found:
        """Run it; raise what SQLAlchemy would."""
        if connection.dialect.driver != "pysqlite":
            return connection.execute(self._clause, values)
        try:
            return driver_of(connection).execute(self.text, values)
        except sqlite3.Error as error:
            raise DBAPIError.instance(self.text, dict(values), error, sqlite3.Error) from error


class Statements:
    """The batch statements for one dialect. Batch columns are called ``row_…`` to tell them from the table's."""

    def __init__(self, dialect: str) -> None:
        self.claims = Rows(row_id="text", row_claim="text", row_dead="text")
        self.completions = Rows(
            row_id="text",
            row_attempts="integer",
            row_claim="text",
            row_ended_at="timestamptz",
            row_result="text",
            row_progress_message="text",
            row_stage="text",
        )
        self.endings = Rows(
            row_id="text",
            row_attempts="integer",
            row_claim="text",
            row_status="text",
            row_outcome="text",
            row_ended_at="timestamptz",
            row_due_at="timestamptz",
            row_result="text",
            row_error_code="text",
            row_error_type="text",
            row_error_message="text",
            row_error_traceback="text",
            row_is_retryable="boolean",
            row_progress="double precision",
            row_progress_message="text",
            row_stage="text",
        )
        claims, endings = self.claims.sql(dialect), self.endings.sql(dialect)
        self.lock = Statement(
            "SELECT 1 FROM background_tasks WHERE task_id = ANY(CAST(:ids AS text[])) ORDER BY task_id FOR UPDATE"
        )
        self.interrupted = Statement(_INTERRUPTED.format(rows=claims))
        self._returns = dialect == "postgresql"
        self.start = Statement(_START.format(rows=claims) + (f"RETURNING {_STARTED}" if self._returns else ""))
        self.started = Statement(_STARTED_ROWS.format(rows=claims))
        self.note = Statement(_NOTE.format(rows=endings))
        self.complete = Statement(_COMPLETE.format(rows=self.completions.sql(dialect)))
        self.settle = Statement(_SETTLE.format(rows=endings))
        self.settled = Statement(_SETTLED.format(rows=endings))

    def moment(self, at: datetime) -> datetime | str:
        """Return a moment as the database takes it."""
        return at if self._returns else iso(at)

    def start_all(self, connection: sa.Connection, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Start what may start; return the :data:`STARTED` columns of the winners.

        SQLite gives the GIL away for every row it returns, and a busy event loop keeps it for milliseconds each
        time: there the winners, told by what the update wrote, come as one JSON document.
        """
        found = self.start.run(connection, values)
        if self._returns:
            return found.fetchall()
        ((text,),) = self.started.run(connection, values).fetchall()
        rows: list[list[Any]] = orjson.loads(text)
        return rows


_STARTED = ", ".join(jobs.c[name].name for name in STARTED)

_INTERRUPTED = """
INSERT INTO task_attempts (task_id, attempt, outcome, worker_id, started_at, ended_at,
                           error_code, error_type, error_message)
SELECT task_id, attempts, 'interrupted', worker_id, started_at, :now, 'worker_lost', 'WorkerLost',
       'The worker stopped renewing its lease.'
FROM background_tasks JOIN {rows} ON task_id = row_id
WHERE status = 'running' AND claim = row_dead AND interruptions + 1 NOT BETWEEN :alone_from AND :alone_until
ON CONFLICT DO NOTHING
"""

_START = """
UPDATE background_tasks SET
    attempts = attempts + CASE WHEN status = 'running' AND claim = row_claim THEN 0 ELSE 1 END,
    interruptions = interruptions + CASE WHEN status = 'running' AND claim <> row_claim THEN 1 ELSE 0 END,
    status = 'running', claim = row_claim, worker_id = :worker, started_at = :now,
    progress = 0, progress_message = NULL, stage = NULL
FROM {rows}
WHERE task_id = row_id AND (
    (status = 'pending' AND due_at <= :now AND (expires_at IS NULL OR expires_at > :now))
    OR (status = 'running' AND claim IN (row_dead, row_claim)))
    AND interruptions + CASE WHEN status = 'running' AND claim <> row_claim THEN 1 ELSE 0 END
        NOT BETWEEN :alone_from AND :alone_until
"""

_STARTED_ROWS = f"""
SELECT json_group_array(json_array({_STARTED})) FROM background_tasks JOIN {{rows}} ON task_id = row_id
WHERE status = 'running' AND claim = row_claim AND interruptions NOT BETWEEN :alone_from AND :alone_until
"""  # noqa: S608  # columns of ours

_FENCE = "task_id = row_id AND status = 'running' AND attempts = row_attempts AND claim = row_claim"

_NOTE = f"""
INSERT INTO task_attempts (task_id, attempt, outcome, worker_id, started_at, ended_at,
                           error_code, error_type, error_message, error_traceback)
SELECT task_id, attempts, row_outcome, worker_id, started_at, row_ended_at,
       row_error_code, row_error_type, row_error_message, row_error_traceback
FROM background_tasks JOIN {{rows}} ON {_FENCE}
WHERE true
ON CONFLICT DO NOTHING
"""  # noqa: S608  # constants of this module

# As _SETTLE, for most that end: a value of a batch costs SQLite half a microsecond, and this needs half of them.
_COMPLETE = f"""
UPDATE background_tasks SET
    status = 'completed', completed_at = row_ended_at, progress = 100,
    progress_message = row_progress_message, stage = row_stage, result = row_result,
    error_code = NULL, error_type = NULL, error_message = NULL, error_traceback = NULL, is_retryable = NULL
FROM {{rows}}
WHERE {_FENCE}
"""  # noqa: S608  # constants of this module

_SETTLE = f"""
UPDATE background_tasks SET
    status = row_status,
    completed_at = CASE WHEN row_status = 'pending' THEN NULL ELSE row_ended_at END,
    due_at = COALESCE(row_due_at, due_at),
    failures = failures + CASE WHEN row_outcome = 'failed' THEN 1 ELSE 0 END,
    interruptions = interruptions + CASE WHEN row_outcome = 'interrupted' THEN 1 ELSE 0 END,
    releases = releases + CASE WHEN row_outcome = 'released' THEN 1 ELSE 0 END,
    progress = row_progress, progress_message = row_progress_message, stage = row_stage, result = row_result,
    error_code = row_error_code, error_type = row_error_type, error_message = row_error_message,
    error_traceback = row_error_traceback, is_retryable = row_is_retryable
FROM {{rows}}
WHERE {_FENCE}
"""  # noqa: S608  # constants of this module

_SETTLED = """
SELECT task_id FROM background_tasks JOIN {rows}
ON task_id = row_id AND status = row_status AND attempts = row_attempts AND claim = row_claim
WHERE status <> 'running'
"""
