"""Turns: work on the database that one process at a time may do, such as archiving and upkeep."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import sqlalchemy as sa

from app.database import Database
from app.errors import Conflict

_NAMESPACE = 0x6A6F6273  # "jobs", as the first half of PostgreSQL's advisory locks


@asynccontextmanager
async def sole_turn(database: Database, name: str) -> AsyncIterator[None]:
    """Be the only one, of all processes, that does ``name``; raise Conflict at once if somebody is at it.

    Whoever dies gives the turn back: it is a lock on a file beside SQLite's, or a session's on PostgreSQL.
    """
    if database.file is not None:
        with _file_turn(database.file.with_name(f"{database.file.name}.{name}.lock"), name):
            yield
        return
    async with database.standalone() as connection:
        lock = sa.select(sa.func.pg_try_advisory_lock(_NAMESPACE, sa.func.hashtext(name)))
        if not (await connection.execute(lock)).scalar_one():
            raise _busy(name)
        yield


@contextmanager
def _file_turn(path: Path, name: str) -> Iterator[None]:
    opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(name) from error
        yield
    finally:
        os.close(opened)


def _busy(name: str) -> Conflict:
    return Conflict(f"Another job is at the {name} of this database; try again when it has ended.", turn=name)
