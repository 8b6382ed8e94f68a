"""Puts one process's parts together: what the API and a worker have in common. Imported by both roots."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from app.database import Database, open_database
from app.history.migrate import upgrade
from app.history.reader import Reader
from app.history.writer import Writer
from app.jobs.catalogue import Catalogue, load_catalogue
from app.lifecycle import Lifecycle
from app.live.outbox import Outbox
from app.queue.client import Queue
from app.queue.connect import Redis, open_redis
from app.records.store import Records
from app.references import References
from app.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Everything a process of the service works with."""

    settings: Settings
    catalogue: Catalogue
    database: Database
    redis: Redis
    queue: Queue
    reader: Reader
    records: Records
    outbox: Outbox
    lifecycle: Lifecycle


@asynccontextmanager
async def open_installation(settings: Settings, catalogue: Catalogue | None = None) -> AsyncIterator[Installation]:
    """Open the stores, bring the schema up to date if so set, and close everything at the end.

    The database must answer; Redis need not, it is connected to when it is there.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    catalogue = catalogue or load_catalogue()
    database = open_database(settings)
    redis = open_redis(settings.redis_url)
    queue = Queue(redis, lease=timedelta(seconds=settings.lease_s), result_ttl=timedelta(seconds=settings.result_ttl_s))
    writer, reader, outbox = Writer(database), Reader(database), Outbox(redis)
    references = References(database, settings)
    lifecycle = Lifecycle(
        catalogue=catalogue, references=references, writer=writer, reader=reader, queue=queue, outbox=outbox
    )
    try:
        if settings.db_auto_upgrade:
            await upgrade(database)
        yield Installation(
            settings=settings,
            catalogue=catalogue,
            database=database,
            redis=redis,
            queue=queue,
            reader=reader,
            records=Records(database),
            outbox=outbox,
            lifecycle=lifecycle,
        )
    finally:
        await writer.close()
        await lifecycle.close()
        await outbox.close()
        await redis.aclose(close_connection_pool=True)
        await database.close()
