"""The limit of SQL: rows inserted and updated in batches of 100 by the bare driver; one table, one key, no guards."""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import asyncpg

from app.clock import new_id
from tests.bench.trials.house import Terms

_BATCH = 100
_TABLE = (
    "CREATE TABLE raw (id text PRIMARY KEY, status text, params text, attempts integer, ended_at text, result text)"
)
_PARAMS, _MOMENT, _RESULT = '{"wait_seconds": 0}', "2026-01-01T00:00:00.000000Z", '{"ok": true}'

Write = Callable[[list[str]], Awaitable[object]]


async def run(terms: Terms) -> dict[str, float]:
    """Insert ``jobs`` rows, then update each once; every batch is a transaction of its own, synced to disk."""
    if terms.database_url:
        return await _postgres(terms)
    return await _sqlite(terms)


async def _sqlite(terms: Terms) -> dict[str, float]:
    connection = sqlite3.connect(Path(terms.directory) / "raw.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"{_TABLE} WITHOUT ROWID")

    async def insert(ids: list[str]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        rows = [(row_id, _PARAMS) for row_id in ids]
        connection.executemany("INSERT INTO raw (id, status, params, attempts) VALUES (?, 'pending', ?, 0)", rows)
        connection.execute("COMMIT")

    async def update(ids: list[str]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        change = "UPDATE raw SET status = 'completed', attempts = attempts + 1, ended_at = ?, result = ? WHERE id = ?"
        connection.executemany(change, [(_MOMENT, _RESULT, row_id) for row_id in ids])
        connection.execute("COMMIT")

    try:
        return await _measured(terms.jobs, insert, update)
    finally:
        connection.close()


async def _postgres(terms: Terms) -> dict[str, float]:
    connection = await asyncpg.connect(terms.database_url.replace("+asyncpg", ""))
    await connection.execute(_TABLE)

    async def insert(ids: list[str]) -> None:
        rows = "SELECT id, 'pending', params, 0 FROM unnest($1::text[], $2::text[]) AS v(id, params)"
        await connection.execute(f"INSERT INTO raw (id, status, params, attempts) {rows}", ids, [_PARAMS] * len(ids))

    async def update(ids: list[str]) -> None:
        count, change = (
            len(ids),
            "status = 'completed', attempts = attempts + 1, ended_at = v.ended_at, result = v.result",
        )
        rows = "unnest($1::text[], $2::text[], $3::text[]) AS v(id, ended_at, result)"
        statement = f"UPDATE raw SET {change} FROM {rows} WHERE raw.id = v.id"  # noqa: S608  # constants of ours
        await connection.execute(statement, ids, [_MOMENT] * count, [_RESULT] * count)

    try:
        return await _measured(terms.jobs, insert, update)
    finally:
        await connection.close()


async def _measured(rows: int, insert: Write, update: Write) -> dict[str, float]:
    ids = [new_id() for _ in range(rows)]
    batches = [ids[at : at + _BATCH] for at in range(0, rows, _BATCH)]
    inserting_s, updating_s = await _seconds(batches, insert), await _seconds(batches, update)
    return {"inserts_s": rows / inserting_s, "updates_s": rows / updating_s}


async def _seconds(batches: Sequence[list[str]], write: Write) -> float:
    before = time.perf_counter()
    for batch in batches:
        await write(batch)
    return time.perf_counter() - before
