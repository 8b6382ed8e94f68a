"""Accepting once: jobs with unique keys, and requests that may be repeated. Called by the writer and the API.

Key, answer and rows are one transaction. Whoever comes second finds the key taken, and writes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.history.accepts import insert_jobs
from app.history.reader import status_terms
from app.history.rows import NewJob
from app.history.tables import jobs, receipts
from app.jobs.status import LIVE, Status

KEPT = timedelta(hours=24)  # after that a key is as good as new

_TRIES = 5  # a rival that commits between the look and the insert is found by the next look
_KEYS = 1000  # looked for in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a request with an Idempotency-Key was answered. ``fingerprint`` tells whether another is the same."""

    owner: str
    key: str
    fingerprint: str
    status: int
    location: str | None
    body: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A live job has the unique key already."""

    unique_key: str
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """Another request with this key was accepted meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Another job runs the same dead letter again, or has done so with success."""

    job_id: str


Accepted = Taken | Repeated | Replayed | None  # None: committed


async def read_receipt(database: Database, owner: str, key: str, *, now: datetime) -> Receipt | None:
    """Return what the request with this key of this caller was answered, for as long as that is kept."""
    wanted = (receipts.c.owner == owner, receipts.c.key == key, receipts.c.created_at > now - KEPT)
    async with database.read() as connection:
        row = (await connection.execute(sa.select(receipts).where(*wanted))).mappings().first()
    return None if row is None else Receipt(**row)


async def accept_once(
    database: Database, accepted: Sequence[NewJob], receipt: Receipt | None, *, letter: str | None = None
) -> Accepted:
    """Insert jobs together with their receipt, all or nothing; return what was in the way, None if nothing was.

    With a ``letter`` they are the replay of that dead letter, which has one at a time.
    """
    # In one order, so that two requests that share several unique keys wait for each other, and never in a circle.
    in_order = sorted(accepted, key=lambda job: (job.unique_key or "", job.id))

    def change(connection: sa.Connection) -> Accepted:
        if letter is not None and (rival := _find_replay(connection, letter)) is not None:
            return Replayed(job_id=rival)
        taken = _find_taken(connection, accepted)
        if taken is not None:
            return Repeated() if receipt and _has(connection, receipt) else taken
        if receipt is not None and not _claim(connection, receipt):
            return Repeated()
        insert_jobs(connection, in_order)
        return None

    for _ in range(_TRIES - 1):
        try:
            return await database.transact(change)
        except IntegrityError:
            continue
    return await database.transact(change)


def _find_taken(connection: sa.Connection, accepted: Sequence[NewJob]) -> Taken | None:
    wanted = sorted({job.unique_key for job in accepted if job.unique_key is not None})
    for at in range(0, len(wanted), _KEYS):
        is_meant = (
            jobs.c.submitted_by == accepted[0].submitted_by,
            jobs.c.unique_key.in_(wanted[at : at + _KEYS]),
        )
        query = sa.select(jobs.c.unique_key, jobs.c.id).where(*is_meant, *status_terms(LIVE)).limit(1)
        row = connection.execute(query).first()
        if row is not None:
            return Taken(unique_key=row.unique_key, job_id=row.id)
    return None


def _find_replay(connection: sa.Connection, letter: str) -> str | None:
    """Return what replays a dead letter, or has recovered it; the letter is locked, so that two never both look."""
    connection.execute(sa.select(jobs.c.id).where(jobs.c.id == letter).with_for_update())
    in_the_way = jobs.c.status.in_((*LIVE, Status.COMPLETED))
    query = sa.select(jobs.c.id).where(jobs.c.retried_from == letter, in_the_way).order_by(jobs.c.id).limit(1)
    found: str | None = connection.execute(query).scalar()
    return found


def _has(connection: sa.Connection, receipt: Receipt) -> bool:
    wanted = (receipts.c.owner == receipt.owner, receipts.c.key == receipt.key)
    kept = receipts.c.created_at > receipt.created_at - KEPT
    return connection.execute(sa.select(receipts.c.key).where(*wanted, kept)).first() is not None


def _claim(connection: sa.Connection, receipt: Receipt) -> bool:
    """Take the key, also from a receipt that is no longer kept; return whether it was free."""
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(receipts)
    values = {name: getattr(receipt, name) for name in Receipt.__dataclass_fields__}
    renewed = {name: insert.excluded[name] for name in values if name not in {"owner", "key"}}
    statement = insert.values(values).on_conflict_do_update(
        index_elements=[receipts.c.owner, receipts.c.key],
        set_=renewed,
        where=receipts.c.created_at <= receipt.created_at - KEPT,
    )
    return connection.execute(statement.returning(receipts.c.key)).first() is not None
