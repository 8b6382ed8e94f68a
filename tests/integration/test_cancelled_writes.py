"""A task that is cancelled in the middle of a write leaves nothing locked."""

import asyncio
import random

import pytest
import sqlalchemy as sa

from app.database import Database


async def write_two(database: Database) -> None:
    """Read, then write and read back, in one transaction."""
    async with database.write() as connection:
        await connection.execute(sa.text("SELECT task_id FROM task_checkpoints WHERE attempt = 2"))
        insert = "INSERT INTO discarded_tasks VALUES ('x', '2026-01-01T00:00:00Z', 'ada') ON CONFLICT DO NOTHING"
        await connection.execute(sa.text(f"{insert} RETURNING task_id"))


@pytest.mark.databases("sqlite")
async def test_a_cancelled_writer_leaves_the_database_to_the_others(database: Database) -> None:
    luck = random.Random(1)

    for _ in range(150):
        writers = [asyncio.create_task(write_two(database)) for _ in range(3)]
        await asyncio.sleep(luck.random() / 100)
        for writer in writers:
            if luck.random() < 0.5:
                writer.cancel()
        await asyncio.wait(writers)
        async with asyncio.timeout(5):
            await write_two(database)
