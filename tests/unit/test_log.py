"""Log lines name the job in whose task they were written."""

import json

import pytest
import structlog

from app.log import bind_job, configure_logging, get_log
from tests.unit.test_announce import started


@pytest.fixture(autouse=True)
def _as_it_was() -> object:
    yield
    structlog.reset_defaults()


async def test_a_line_names_the_job_that_its_task_runs(capfd: pytest.CaptureFixture[str]) -> None:
    job = started()
    structlog.reset_defaults()
    configure_logging("INFO", "json")
    bind_job(job)

    get_log().info("thing_happened", queue="its own word")

    line = json.loads(capfd.readouterr().err)
    assert {name: line[name] for name in ("job_id", "kind", "attempt", "queue")} == {
        **job.names,
        "queue": "its own word",
    }
