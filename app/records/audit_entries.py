"""Audit entries: who did what, when, and how it ended; and the questions that archiving asks of them."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field, JsonValue

from app.database import Database
from app.jobs.fields import Identifier, Moment
from app.records.record import Record, RecordType

RESERVED = "service-"  # ids of the service's own entries begin so; nobody else writes any of these


class AuditSeverity(StrEnum):
    """How much an audit entry matters."""

    DEBUG = "debug"
    """For those who look for a fault."""
    INFO = "info"
    """Something ordinary happened."""
    WARNING = "warning"
    """Something that somebody should look at."""
    ERROR = "error"
    """Something went wrong."""
    CRITICAL = "critical"
    """Something went wrong that cannot wait."""


class AuditEntry(Record):
    """One thing that somebody, or the system itself, did."""

    entry_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier | None = None
    """Who did it; null is the system itself."""
    timestamp: Moment
    """When it was done."""
    event_type: Identifier
    """The class of event, as a stable word."""
    severity: AuditSeverity = AuditSeverity.INFO
    """How much it matters."""
    action: Annotated[str, Field(min_length=1, max_length=1000)]
    """What was done, in words."""
    session_id: Identifier | None = None
    """The session it belongs to."""
    component: Identifier | None = None
    """The part of the product that it was done in."""
    details: dict[str, JsonValue] | None = None
    """Anything else there is to know."""
    result: Annotated[str, Field(max_length=1000)] | None = None
    """How it ended, such as ``success``."""
    ip_address: Identifier | None = None
    """Where it was asked from."""
    resource: Annotated[str, Field(max_length=1000)] | None = None
    """What it was done to."""


AUDIT_ENTRIES = RecordType(
    name="audit-entries",
    model=AuditEntry,
    id_field="entry_id",
    summary="Who did what, when, and how it ended.",
)


async def count_before(database: Database, cutoff: datetime) -> int:
    """Count the entries from before a time."""
    table = AUDIT_ENTRIES.table
    counted = sa.select(sa.func.count()).select_from(table).where(table.c.timestamp < cutoff)
    async with database.read() as connection:
        return int((await connection.execute(counted)).scalar_one())


async def read_before(
    database: Database, cutoff: datetime, *, after: tuple[datetime, str] | None = None, limit: int = 1000
) -> Sequence[dict[str, Any]]:
    """Return the oldest entries from before a time, in the order of time and id, from ``after`` on."""
    columns = AUDIT_ENTRIES.table.c
    position = (columns.timestamp, columns.entry_id)
    page = sa.select(AUDIT_ENTRIES.table).where(columns.timestamp < cutoff).order_by(*position).limit(limit)
    if after is not None:
        reached = (sa.literal(after[0], columns.timestamp.type), sa.literal(after[1]))
        page = page.where(sa.tuple_(*position) > sa.tuple_(*reached))
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(page)).mappings()]


async def delete_entries(database: Database, ids: Sequence[str]) -> int:
    """Delete exactly these entries (at most 1,000) in one transaction; return how many were still there."""
    identity = AUDIT_ENTRIES.table.c.entry_id
    async with database.write() as connection:
        return int((await connection.execute(sa.delete(AUDIT_ENTRIES.table).where(identity.in_(ids)))).rowcount)
