"""The runbook keeps its word: every event, metric, setting, route and command that it names exists."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.metrics import queue_families
from app.settings import Settings
from tests.chaos.__main__ import Programme

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text()
SOURCES = "\n".join(path.read_text() for top in ("app", "workers") for path in (ROOT / top).rglob("*.py"))

EVENTS = set(re.findall(r'\blog\.(?:debug|info|warning|error|exception)\(\s*"(\w+)"', SOURCES))
METRICS = {
    *(f"{name}_total" for name in re.findall(r'(?:Counter|CounterMetricFamily)\(\s*"(\w+)"', SOURCES)),
    *re.findall(r'(?:Histogram|HistogramMetricFamily|gauge)\(\s*"(\w+)"', SOURCES),
    *(family.name for family in queue_families([])),
}
ELSEWHERE = {  # words of Redis, PostgreSQL and the API, which are not ours to keep
    "synchronous_commit",
    "max_connections",
    "unknown_task",
    "worker_lost",
    "memory_exceeded",
    "result_invalid",
    "fencing_token",
    "loop_lag",
    "job_id",
    "worker_id",
    "pg_dump",
}

NAMED = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", RUNBOOK))


@pytest.mark.parametrize("name", sorted(NAMED - ELSEWHERE))
def test_every_event_and_metric_of_the_runbook_exists(name: str) -> None:
    assert name in EVENTS | METRICS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", RUNBOOK))))
def test_every_setting_of_the_runbook_exists(name: str) -> None:
    assert name.lower() in Settings.model_fields


@pytest.mark.parametrize("code", ["unknown_task", "worker_lost", "timeout", "memory_exceeded", "result_invalid"])
def test_every_error_code_of_the_runbook_is_written_by_the_workers(code: str) -> None:
    assert f"`{code}`" in RUNBOOK
    assert f'"{code}"' in SOURCES


def test_every_scenario_of_chaos_is_rehearsed_by_name() -> None:
    programme = Programme(seed=1, jobs=None, kills=None, minutes=1, stack=ExitStack())
    chapter = RUNBOOK.partition("## The failures that we rehearse")[2].partition("## ")[0]
    named = [name for names in re.findall(r"^\| [^|]*?\((`[^|]*?)\) \|", chapter, re.M) for name in names.split(", ")]

    assert sorted(name.strip("`") for name in named) == sorted(programme.scenarios.keys() - {"arq"})


def test_every_make_command_of_the_runbook_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"`make ([a-z-]+)", RUNBOOK)) <= targets


def test_every_warning_that_the_engine_gives_while_a_store_is_out_is_in_the_runbook() -> None:
    told = {"redis_not_told", "claiming_interrupted", "leases_not_renewed", "settle_delayed", "jobs_rung_again"}

    assert told <= EVENTS
    assert told <= NAMED
