"""Alerts: what the queue monitor found wrong, from when to when, each once however often it is seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.jobs.fields import Identifier, Integer, Moment, Number
from app.jobs.system import AlertName, AlertSeverity
from app.records.record import Record, RecordType
from app.records.store import Records


class Alert(Record):
    """One thing that was wrong for a while: an episode of it."""

    alert_id: Identifier
    """Its id: name, subject and episode."""
    name: AlertName
    """What is wrong, as a stable word."""
    subject: Identifier
    """With what: a queue, a kind of task, a disk."""
    episode: Annotated[Integer, Field(ge=1)]
    """Which time it is that this is wrong with this subject, counted from 1."""
    severity: AlertSeverity
    """How bad it is."""
    message: str
    """What is wrong, in words, with the figures of when it was last seen."""
    value: Number
    """The figure when it was last seen."""
    threshold: Number
    """The figure beyond which it is wrong."""
    raised_at: Moment
    """When it was first seen."""
    last_seen_at: Moment
    """When it was last seen."""
    occurrences: Annotated[Integer, Field(ge=1)] = 1
    """How often it was seen."""
    resolved_at: Moment | None = None
    """When it was first seen to be over; null while it goes on."""


ALERTS = RecordType(
    name="alerts",
    model=Alert,
    id_field="alert_id",
    user_field=None,
    time_field="raised_at",
    summary="What the queue monitor found wrong, and for how long.",
    is_admin_only=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong now."""

    name: AlertName
    subject: str
    severity: AlertSeverity
    message: str
    value: float
    threshold: float

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same as one seen before."""
        return self.name, self.subject


async def note_findings(database: Database, findings: Iterable[Finding], now: datetime) -> list[Alert]:
    """Store what is wrong now: go on with open alerts, open new ones, close those that are over; return the open ones.

    The id follows from name, subject and episode, so that two monitors at once write one row, not two.
    """
    found = {finding.key: finding for finding in findings}
    latest = await _latest_episodes(database)
    over = [
        alert.model_copy(update={"resolved_at": now})
        for key, alert in latest.items()
        if alert.resolved_at is None and key not in found
    ]
    current = [_episode_of(finding, latest.get(key), now) for key, finding in found.items()]
    await Records(database).upsert(ALERTS, [*over, *current])
    return current


async def _latest_episodes(database: Database) -> dict[tuple[str, str], Alert]:
    table = ALERTS.table
    newest = sa.select(table.c.name, table.c.subject, sa.func.max(table.c.episode).label("episode"))
    last = newest.group_by(table.c.name, table.c.subject).subquery()
    same = [table.c[name] == last.c[name] for name in ("name", "subject", "episode")]
    async with database.read() as connection:
        rows = await _rows(connection, sa.select(table).join(last, sa.and_(*same)))
    return {(alert.name, alert.subject): alert for alert in ALERTS.batch.validate_python(rows)}


async def _rows(connection: AsyncConnection, query: "sa.Select[Any]") -> Sequence[dict[str, Any]]:
    return [dict(row) for row in (await connection.execute(query)).mappings()]


def _episode_of(finding: Finding, before: Alert | None, now: datetime) -> Alert:
    """Return the open alert that a finding belongs to, or a new one."""
    goes_on = before is not None and before.resolved_at is None
    episode = 1 if before is None else before.episode if goes_on else before.episode + 1
    return Alert(
        alert_id=f"{finding.name}/{finding.subject}/{episode}",
        name=finding.name,
        subject=finding.subject,
        episode=episode,
        severity=finding.severity,
        message=finding.message,
        value=finding.value,
        threshold=finding.threshold,
        raised_at=before.raised_at if before is not None and goes_on else now,
        last_seen_at=now,
        occurrences=before.occurrences + 1 if before is not None and goes_on else 1,
    )
