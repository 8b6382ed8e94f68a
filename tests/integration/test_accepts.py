"""What is accepted is stored whole, whatever is accepted with it."""

from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any

from app.clock import new_id, utc_now
from app.database import Database
from app.history.accepts import insert_jobs
from app.history.reader import Reader
from app.history.rows import NewJob
from tests.support.house import new_job, whole_ms

LATER = whole_ms(utc_now()) + timedelta(hours=1)
OPTIONAL: dict[str, Any] = {
    "scheduled_for": LATER,
    "expires_at": LATER,
    "retried_from": new_id(),
    "schedule": "nightly",
    "tick_at": LATER,
    "unique_key": "only-one",
    "webhook_id": new_id(),
}


async def test_what_one_job_of_a_group_says_beyond_the_others_is_stored(database: Database) -> None:
    groups = [[new_job(), new_job(**{name: value})] for name, value in OPTIONAL.items()]

    for group in groups:
        await database.transact(partial(insert_jobs, accepted=group))

    stored = await Reader(database).get_many([job.id for group in groups for job in group])
    for job in (job for group in groups for job in group):
        row = asdict(stored[job.id])
        assert {name: row[name] for name in NewJob.__dataclass_fields__} == asdict(job)


def test_the_optional_are_all_that_a_job_need_not_say() -> None:
    assert set(OPTIONAL) == {name for name, field in NewJob.__dataclass_fields__.items() if field.default is None}
