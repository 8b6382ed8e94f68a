"""The status machine under random schedules, on both databases."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from app.settings import Settings
from tests.conftest import DatabaseKind
from tests.model.machine import JobMachine
from tests.support.postgres_server import empty_database
from tests.support.redis_server import RedisUnderTest

_SCHEDULES = hypothesis_settings(
    max_examples=int(os.environ.get("MODEL_SCHEDULES", "20")),
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a schedule of thirty steps reads well enough; shrinking one takes minutes
)


@pytest.mark.timeout(600)
@pytest.mark.databases("sqlite", "postgresql")
def test_no_schedule_loses_a_job_or_runs_one_twice(
    settings: Settings, redis_server: RedisUnderTest, request: pytest.FixtureRequest, database_kind: DatabaseKind
) -> None:
    def clear() -> None:
        redis_server.flush()
        if database_kind == "postgresql":
            empty_database(settings.database_url)
            return
        for old in settings.data_dir.glob("jobs.db*"):
            old.unlink()
        shutil.copy(request.getfixturevalue("sqlite_template"), settings.data_dir / "jobs.db")

    run_state_machine_as_test(lambda: JobMachine(settings, clear), settings=_SCHEDULES)  # type: ignore[arg-type]
