"""The journal: every change of a job's row, written down by a trigger of the database itself.

Events may be trimmed, late or lost with Redis; a trigger sees what was committed, in its order, whoever
wrote it.
"""

import sqlalchemy as sa

from app.database import Database
from tests.chaos.history import Change, Noted, Row

_COLUMNS = "task_id, status_before, status, attempts_before, attempts, claim_before, claim"
_NEW = "NEW.task_id, NULL, NEW.status, 0, NEW.attempts, NULL, NEW.claim"
_BOTH = "NEW.task_id, OLD.status, NEW.status, OLD.attempts, NEW.attempts, OLD.claim, NEW.claim"

_SQLITE = (
    """
    CREATE TABLE chaos_changes (
        seq INTEGER PRIMARY KEY, task_id TEXT, status_before TEXT, status TEXT, attempts_before INTEGER,
        attempts INTEGER, claim_before TEXT, claim TEXT,
        at REAL DEFAULT ((julianday('now') - 2440587.5) * 86400.0))
    """,
    f"""
    CREATE TRIGGER chaos_inserted AFTER INSERT ON background_tasks BEGIN
        INSERT INTO chaos_changes ({_COLUMNS}) VALUES ({_NEW});
    END
    """,  # noqa: S608  # constants of this module
    f"""
    CREATE TRIGGER chaos_updated AFTER UPDATE ON background_tasks BEGIN
        INSERT INTO chaos_changes ({_COLUMNS}) VALUES ({_BOTH});
    END
    """,  # noqa: S608  # constants of this module
)
_POSTGRESQL = (
    """
    CREATE TABLE chaos_changes (
        seq bigserial PRIMARY KEY, task_id text, status_before text, status text, attempts_before integer,
        attempts integer, claim_before text, claim text,
        at double precision DEFAULT extract(epoch FROM clock_timestamp()))
    """,
    f"""
    CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO chaos_changes ({_COLUMNS}) VALUES ({_NEW});
        ELSE
            INSERT INTO chaos_changes ({_COLUMNS}) VALUES ({_BOTH});
        END IF;
        RETURN NULL;
    END $$
    """,  # noqa: S608  # constants of this module
    """
    CREATE TRIGGER chaos_noted AFTER INSERT OR UPDATE ON background_tasks
    FOR EACH ROW EXECUTE FUNCTION chaos_note()
    """,
)

_JSON_MARK = {"sqlite": "json_extract({}, '$.{}')", "postgresql": "CAST({} AS json) ->> '{}'"}


async def install_journal(database: Database) -> None:
    """Let the database write down every change from now on. Once a database."""
    async with database.write() as connection:
        for statement in _SQLITE if database.dialect == "sqlite" else _POSTGRESQL:
            await connection.exec_driver_sql(statement)


async def read_changes(database: Database) -> list[Change]:
    """Return every change, in the order of the commits of each row."""
    query = "SELECT seq, task_id, status_before, status, attempts_before, attempts, claim_before, claim, at"
    async with database.read() as connection:
        found = (await connection.execute(sa.text(f"{query} FROM chaos_changes ORDER BY seq"))).all()
    names = ("seq", "job_id", "before", "after", "attempts_before", "attempts", "claim_before", "claim", "at")
    return [Change(**dict(zip(names, row, strict=True))) for row in found]


async def read_rows(database: Database) -> list[Row]:
    """Return every row as it stands."""
    extract = _JSON_MARK[database.dialect]
    mark, attempt = extract.format("params", "mark"), extract.format("result", "attempt")
    query = f"SELECT task_id, {mark}, status, attempts, interruptions, releases, {attempt} FROM background_tasks"  # noqa: S608
    async with database.read() as connection:
        found = (await connection.execute(sa.text(query))).all()
    return [
        Row(
            job_id=job_id,
            mark=mark or "",
            status=status,
            attempts=attempts,
            interruptions=interruptions,
            releases=releases,
            result_attempt=None if attempt is None else int(attempt),
        )
        for job_id, mark, status, attempts, interruptions, releases, attempt in found
    ]


async def read_noted(database: Database) -> list[Noted]:
    """Return every attempt that has a row of its own."""
    async with database.read() as connection:
        found = (await connection.execute(sa.text("SELECT task_id, attempt, outcome FROM task_attempts"))).all()
    return [Noted(job_id=job_id, attempt=attempt, outcome=outcome) for job_id, attempt, outcome in found]


async def count_live(database: Database) -> int:
    """Count the jobs that have not ended."""
    query = "SELECT count(*) FROM background_tasks WHERE status IN ('pending', 'running')"
    async with database.read() as connection:
        return int((await connection.execute(sa.text(query))).scalar_one())
