"""Webhooks as they are stored: whom they belong to, what they are told, and how they have fared.

Their secrets are sealed by ``app.credentials.webhooks``; here they are only texts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.database import Database, Json, UtcTime, metadata
from app.history.rows import Job

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("webhook_id", sa.Text, key="id", primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("is_for_all", sa.Boolean, nullable=False),  # told of everybody's tasks, not of the owner's alone
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("events", Json, nullable=False),  # none: told only of tasks that name it
    sa.Column("filters", Json, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("old_secret", sa.Text),
    sa.Column("old_secret_ends_at", UtcTime),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("disabled_at", UtcTime),
    sa.Column("disabled_reason", sa.Text),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),  # in a row
    sa.Column("failing_since", UtcTime),
    sqlite_with_rowid=False,
)
sa.Index("ix_webhooks_owner", webhooks.c.owner)

deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("delivery_id", sa.Text, key="id", primary_key=True),  # and of the job that tried it first
    sa.Column("webhook_id", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("task_id", sa.Text),  # null for a test
    sa.Column("job_id", sa.Text, nullable=False),  # the job that tries it, or tried it last
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("last_attempt_at", UtcTime),
    sa.Column("status_code", sa.Integer),  # this and the next two: of the last attempt
    sa.Column("duration_s", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("delivered_at", UtcTime),
    sqlite_with_rowid=False,
)
sa.Index("ix_webhook_deliveries_webhook_id", deliveries.c.webhook_id, deliveries.c.created_at, deliveries.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One webhook. Times are aware UTC."""

    id: str
    owner: str
    is_for_all: bool
    url: str
    description: str | None
    events: list[str]
    filters: dict[str, list[str]]
    secret: str
    old_secret: str | None
    old_secret_ends_at: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    failures: int
    failing_since: datetime | None

    def wants(self, job: Job, event: str) -> bool:
        """Whether it is to be told of this end of a job: one that names it, or one of its owner's, or of anybody's."""
        if job.webhook_id == self.id:
            return True
        if not self.is_for_all and job.submitted_by != self.owner:
            return False
        kinds, queues = self.filters.get("task_names"), self.filters.get("queues")
        return event in self.events and (not kinds or job.kind in kinds) and (not queues or job.queue in queues)


async def insert_webhook(database: Database, webhook: Webhook, *, at_most: int) -> bool:
    """Store a webhook; return False, and store nothing, if its owner has as many already."""
    count = sa.select(sa.func.count()).select_from(webhooks).where(webhooks.c.owner == webhook.owner)
    insert = (postgresql if database.dialect == "postgresql" else sqlite).insert(webhooks)
    async with database.write() as connection:
        if int((await connection.execute(count)).scalar_one()) >= at_most:
            return False
        await connection.execute(insert.values(asdict(webhook)).on_conflict_do_nothing())
    return True


async def find_webhook(database: Database, webhook_id: str) -> Webhook | None:
    """Return a webhook by its id."""
    async with database.read() as connection:
        row = (await connection.execute(_selected().where(webhooks.c.id == webhook_id))).mappings().first()
    return None if row is None else Webhook(**row)


async def list_webhooks(database: Database, *, owner: str | None) -> list[Webhook]:
    """Return the webhooks of an owner, or of everybody, the newest first; at most 1,000."""
    query = _selected().order_by(webhooks.c.id.desc()).limit(1000)
    if owner is not None:
        query = query.where(webhooks.c.owner == owner)
    async with database.read() as connection:
        return [Webhook(**row) for row in (await connection.execute(query)).mappings()]


async def change_webhook(database: Database, webhook_id: str, changes: dict[str, Any]) -> Webhook | None:
    """Change columns of a webhook; return it as it is now, or None if it is gone."""
    statement = sa.update(webhooks).where(webhooks.c.id == webhook_id).values(changes).returning(*_columns())
    async with database.write() as connection:
        row = (await connection.execute(statement)).mappings().first()
    return None if row is None else Webhook(**row)


async def delete_webhook(database: Database, webhook_id: str) -> None:
    """Delete a webhook and its log; what is on its way to it finds it gone."""
    async with database.write() as connection:
        await connection.execute(sa.delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
        await connection.execute(sa.delete(webhooks).where(webhooks.c.id == webhook_id))


async def note_success(database: Database, webhook_id: str) -> None:
    """Note that a webhook has taken a delivery: it fails no more."""
    failing = sa.and_(webhooks.c.id == webhook_id, webhooks.c.failures > 0)
    async with database.write() as connection:
        await connection.execute(sa.update(webhooks).where(failing).values(failures=0, failing_since=None))


async def note_failure(
    database: Database, webhook_id: str, *, now: datetime, at_most: int, within: timedelta
) -> Webhook | None:
    """Note that a delivery failed; disable a webhook that failed as often in a row, for as long.

    Return it if this has disabled it.
    """
    since = sa.func.coalesce(webhooks.c.failing_since, sa.literal(now, UtcTime), type_=UtcTime)
    noted = sa.update(webhooks).where(webhooks.c.id == webhook_id)
    is_hopeless = (
        webhooks.c.failures >= at_most,
        webhooks.c.failing_since <= now - within,
        webhooks.c.disabled_at.is_(None),
    )
    reason = f"It failed {at_most} times in a row and more, for longer than {within.days} days."
    ended = noted.where(*is_hopeless).values(disabled_at=now, disabled_reason=reason).returning(*_columns())
    async with database.write() as connection:
        await connection.execute(noted.values(failures=webhooks.c.failures + 1, failing_since=since))
        row = (await connection.execute(ended)).mappings().first()
    return None if row is None else Webhook(**row)


async def disable_webhook(database: Database, webhook_id: str, *, now: datetime, reason: str) -> Webhook | None:
    """Tell a webhook nothing any more; return it if it was not disabled before."""
    live = sa.update(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.disabled_at.is_(None))
    async with database.write() as connection:
        ended = live.values(disabled_at=now, disabled_reason=reason).returning(*_columns())
        row = (await connection.execute(ended)).mappings().first()
    return None if row is None else Webhook(**row)


def concerned(connection: sa.Connection, ended: Sequence[Job]) -> list[Webhook]:
    """Return the webhooks that may have to be told of these jobs: their owners', everybody's, and those they name."""
    owners = sorted({job.submitted_by for job in ended})
    named = sorted({job.webhook_id for job in ended if job.webhook_id is not None})
    theirs = sa.or_(webhooks.c.owner.in_(owners), webhooks.c.is_for_all, webhooks.c.id.in_(named))
    query = _selected().where(webhooks.c.disabled_at.is_(None), theirs)
    return [Webhook(**row) for row in connection.execute(query).mappings()]


def _selected() -> "sa.Select[Any]":
    return sa.select(*_columns())


def _columns() -> "list[sa.ColumnElement[Any]]":
    return [column.label(column.key) for column in webhooks.c]
