"""Log lines name the job in whose task they were written."""

import io
import json
import sys

import pytest
import structlog
from typing_extensions import Buffer

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


class Pieces(io.RawIOBase):
    """A file that keeps each write apart, as several processes that share one would mix them."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        self.written.append(bytes(data))
        return len(self.written[-1])


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Pieces()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True))
    structlog.reset_defaults()
    configure_logging("INFO", "json")

    get_log().info("thing_happened", text="x" * 4000)

    (line,) = raw.written
    assert line.endswith(b"}\n")
