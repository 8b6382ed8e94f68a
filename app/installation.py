"""Puts one process's parts together: what the API and a worker have in common. Imported by both roots."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from app.database import Database, open_database
from app.errors import Unavailable
from app.history.epochs import read_epoch
from app.history.migrate import upgrade
from app.history.reader import Reader
from app.history.writer import Writer
from app.jobs.catalogue import Catalogue, load_catalogue
from app.lifecycle import Lifecycle
from app.live.outbox import Outbox
from app.log import get_log
from app.queue.client import Queue
from app.queue.connect import OUTAGES, Redis, open_redis
from app.queue.epoch import Epochs
from app.queue.inspection import inspect_redis
from app.records.store import Records
from app.references import References
from app.settings import Settings

log = get_log()


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


async def check_stores(installation: Installation) -> None:
    """Refuse to start, with Misconfigured, on a Redis that is not ours or would lose jobs; warn of what is unwise.

    A Redis that does not answer is no reason to refuse: the sweep looks at whose it is once it is there.
    """
    try:
        for advice in await inspect_redis(installation.redis):
            log.warning("redis_setting_unwise", advice=advice)
        epochs = Epochs(installation.redis, lease=timedelta(seconds=installation.settings.lease_s))
        await epochs.read((await read_epoch(installation.database)).installation)
    except (Unavailable, *OUTAGES) as error:
        log.warning("stores_not_checked", reason=str(error))


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
