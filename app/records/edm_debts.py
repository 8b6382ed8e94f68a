"""Epistemic debts: claims that lack support, how they were resolved, and the questions asked of them in SQL."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field, model_validator
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.errors import Conflict
from app.jobs.edm import DebtSeverity, DebtType, FactCheckStatus, Span
from app.jobs.fields import Identifier, Model, Moment, Number
from app.records.interactions import mark_scanned
from app.records.record import Record, RecordAction, RecordType, check_moment

MAX_SEEN = 100  # interactions remembered of a debt; beyond that it is common enough


class EdmDebt(Record):
    """A claim that somebody took on without what would bear it out."""

    debt_id: Identifier
    """Its id, unique over all users."""
    user_id: Identifier
    """Whose debt it is."""
    timestamp: Moment
    """When it was said first."""
    claim: Annotated[str, Field(min_length=1, max_length=20_000)]
    """The sentence, as it stands in the interaction."""
    span: Span | None = None
    """Where it stands in that part of the interaction."""
    part: Annotated[str, Field(pattern="^(prompt|response)$")] | None = None
    """Which part of the interaction it stands in: ``prompt`` or ``response``."""
    debt_type: DebtType
    """What it lacks."""
    severity: DebtSeverity
    """How much rests on it."""
    confidence: Annotated[Number, Field(ge=0, le=1)] | None = None
    """How likely it matches the fact check in ``source``, 0–1; null where a plain rule found the debt."""
    interaction_id: Identifier | None = None
    """Where it was said first."""
    seen_in: tuple[Identifier, ...] = ()
    """The interactions it was said in, at most 100."""
    last_seen_at: Moment | None = None
    """When it was said last."""
    fact_check_status: FactCheckStatus = FactCheckStatus.PENDING
    """What fact-checkers say of the claim it matches."""
    source: Annotated[str, Field(max_length=4_000)] | None = None
    """The fact check it matches, by id."""
    evidence: Annotated[str, Field(max_length=20_000)] | None = None
    """Why it counts as a debt, in one sentence."""
    resolved: bool = False
    """Whether it is settled."""
    resolution_method: Identifier | None = None
    """How it was settled, as a word such as ``citation_added``."""
    resolved_at: Moment | None = None
    """When it was settled."""

    @model_validator(mode="after")
    def _is_dated_when_resolved(self) -> "EdmDebt":
        if self.resolved != (self.resolved_at is not None):
            raise ValueError("resolved_at is given exactly when resolved is true")
        return self


class Resolution(Model):
    """How a debt was settled."""

    resolution_method: Identifier
    """How, as a word such as ``citation_added``."""
    resolved_at: Moment | None = None
    """When; by default now. Not before the debt was made, and not in the future."""


def resolve(debt: EdmDebt, resolution: Resolution, now: datetime) -> EdmDebt:
    """Return the debt as settled; raise Conflict when it was settled in another way or at another time."""
    if debt.resolved:
        if (debt.resolution_method, resolution.resolved_at or debt.resolved_at) != (
            resolution.resolution_method,
            debt.resolved_at,
        ):
            raise Conflict(
                f"This debt was resolved by {debt.resolution_method!r} at {debt.resolved_at:%FT%TZ} already."
            )
        return debt
    at = resolution.resolved_at or max(now, debt.timestamp)
    check_moment("resolved_at", at, since=debt.timestamp, now=now)
    return debt.model_copy(
        update={"resolved": True, "resolution_method": resolution.resolution_method, "resolved_at": at}
    )


EDM_DEBTS = RecordType(
    name="edm-debts",
    model=EdmDebt,
    id_field="debt_id",
    summary="Epistemic debts: claims that lack support, and how they were resolved.",
    actions=(RecordAction(name="resolve", summary="Settle an epistemic debt.", body=Resolution, apply=resolve),),
)


async def store_scan(
    database: Database, debts: Sequence[EdmDebt], *, interaction_ids: Sequence[str], at: datetime
) -> int:
    """Store what a scan found and mark the interactions as looked through, in one transaction; return how many are new.

    A known debt keeps what it was resolved by, and gains the interactions it was seen in; its severity can only
    rise. Repeatable: a second time changes nothing.
    """
    async with database.write() as connection:
        known = await _lock(connection, [debt.debt_id for debt in debts])
        merged = [_merge(known.get(debt.debt_id), debt) for debt in debts]
        if merged:
            insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
            statement = insert(EDM_DEBTS.table)
            changed = {name: new for name, new in statement.excluded.items() if name in _GROWING}
            upsert = statement.on_conflict_do_update(index_elements=["debt_id"], set_=changed)
            await connection.execute(upsert, EDM_DEBTS.batch.dump_python(merged))
        await connection.execute(mark_scanned(interaction_ids, at))
    return len(debts) - len(known)


async def read_open_debts(
    database: Database, user_id: str | None, since: datetime, until: datetime, *, batch: int = 500
) -> AsyncIterator[list[EdmDebt]]:
    """Yield the unresolved debts said since then, in the order of users and ids, ``batch`` at a time."""
    columns = EDM_DEBTS.table.c
    position = sa.tuple_(columns.user_id, columns.debt_id)
    last_seen = sa.func.coalesce(columns.last_seen_at, columns.timestamp, type_=columns.timestamp.type)
    terms = [columns.resolved.is_(False), last_seen >= since, columns.timestamp <= until]
    terms += [] if user_id is None else [columns.user_id == user_id]
    ordered = sa.select(EDM_DEBTS.table).where(*terms).order_by(*position).limit(batch)
    page = ordered
    while True:
        async with database.read() as connection:
            found = await _fetch(connection, page)
        if found:
            yield found
        if len(found) < batch:
            return
        page = ordered.where(position > sa.tuple_(sa.literal(found[-1].user_id), sa.literal(found[-1].debt_id)))


async def read_ledger(
    database: Database, user_id: str, since: datetime, until: datetime, *, batch: int = 500
) -> AsyncIterator[list[EdmDebt]]:
    """Yield a user's debts that are open, or were detected or resolved in the window, in the order of their ids."""
    columns = EDM_DEBTS.table.c
    in_window = sa.or_(columns.resolved.is_(False), columns.timestamp >= since, columns.resolved_at >= since)
    ordered = sa.select(EDM_DEBTS.table).where(columns.user_id == user_id, columns.timestamp <= until, in_window)
    ordered = ordered.order_by(columns.debt_id).limit(batch)
    page = ordered
    while True:
        async with database.read() as connection:
            found = await _fetch(connection, page)
        if found:
            yield found
        if len(found) < batch:
            return
        page = ordered.where(columns.debt_id > found[-1].debt_id)


_GROWING = {
    "timestamp", "claim", "span", "part", "severity", "confidence", "interaction_id", "seen_in", "last_seen_at",
    "fact_check_status", "source", "evidence",
}  # fmt: skip


def _merge(known: EdmDebt | None, new: EdmDebt) -> EdmDebt:
    if known is None:
        return new
    levels = list(DebtSeverity)
    first, graver = min((known, new), key=_said), max((known, new), key=lambda debt: levels.index(debt.severity))
    return first.model_copy(
        update={
            "severity": graver.severity,
            "confidence": graver.confidence,
            "fact_check_status": graver.fact_check_status,
            "source": graver.source,
            "evidence": graver.evidence,
            "seen_in": tuple(dict.fromkeys((*known.seen_in, *new.seen_in)))[:MAX_SEEN],
            "last_seen_at": max(_last_seen(known), _last_seen(new)),
        }
    )


def _said(debt: EdmDebt) -> tuple[datetime, str]:
    return debt.timestamp, debt.interaction_id or ""


def _last_seen(debt: EdmDebt) -> datetime:
    return debt.last_seen_at or debt.timestamp


async def _lock(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, EdmDebt]:
    """Read debts and keep others from changing them until the transaction ends; all in one order."""
    columns = EDM_DEBTS.table.c
    chosen = sa.select(EDM_DEBTS.table).where(columns.debt_id.in_(ids)).order_by(columns.debt_id)
    return {debt.debt_id: debt for debt in await _fetch(connection, chosen.with_for_update())}


async def _fetch(connection: AsyncConnection, query: "sa.Select[Any]") -> list[EdmDebt]:
    rows = (await connection.execute(query)).mappings().all()
    return EDM_DEBTS.batch.validate_python([dict(row) for row in rows])
