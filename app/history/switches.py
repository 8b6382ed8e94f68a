"""The switches of schedules: which ones are off, since when, and who turned them. Any other is on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from app.database import Database
from app.history.rows import Job, job_from
from app.history.tables import jobs, schedules


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """How somebody left the switch of a schedule."""

    name: str
    is_enabled: bool
    changed_at: datetime
    changed_by: str


async def read_switches(database: Database) -> dict[str, Switch]:
    """Return the switches that were ever turned, by the names of their schedules."""
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(schedules))).mappings().all()
    return {row["name"]: Switch(**row) for row in rows}


async def turn_switch(database: Database, switch: Switch) -> None:
    """Leave a switch like this; one that stands so already keeps the time and the name of who turned it."""
    insert = (postgresql if database.dialect == "postgresql" else sqlite).insert(schedules).values(**_row(switch))
    statement = insert.on_conflict_do_update(
        index_elements=[schedules.c.name],
        set_={name: insert.excluded[name] for name in ("is_enabled", "changed_at", "changed_by")},
        where=schedules.c.is_enabled != insert.excluded.is_enabled,
    )
    async with database.write() as connection:
        await connection.execute(statement)


async def read_latest_runs(database: Database, names: Sequence[str]) -> dict[str, tuple[Job | None, Job | None]]:
    """Return, of each schedule, the job of its latest tick and the latest job that somebody ran by hand."""
    columns = [column.label(column.key) for column in jobs.c]
    found: dict[str, tuple[Job | None, Job | None]] = {}
    async with database.read() as connection:
        for name in names:
            of_name = sa.select(*columns).where(jobs.c.schedule == name).limit(1)
            tick = of_name.where(jobs.c.tick_at.is_not(None)).order_by(jobs.c.tick_at.desc())
            by_hand = of_name.where(jobs.c.tick_at.is_(None)).order_by(jobs.c.id.desc())
            rows = [(await connection.execute(query)).mappings().first() for query in (tick, by_hand)]
            first, second = (None if row is None else job_from(row) for row in rows)
            found[name] = (first, second)
    return found


def _row(switch: Switch) -> dict[str, object]:
    return {name: getattr(switch, name) for name in Switch.__dataclass_fields__}
