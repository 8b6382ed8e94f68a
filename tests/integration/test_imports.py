"""What a process loads: nothing that only another process's work needs."""

import os
import subprocess
import sys
from pathlib import Path

HEAVY = {"aiobotocore", "botocore", "networkx", "numpy", "ortools", "pandas", "ruptures", "scipy", "sklearn", "torch"}

API = "import app.api.server, app.cli.serve"
WORKER = """
from app.jobs.catalogue import load_catalogue
import workers.__main__, workers.worker, workers.context
from workers.settings import worker_settings
functions = worker_settings(load_catalogue(), ticks=True).functions
"""
FIRST_JOB = """
import asyncio
try:
    asyncio.run(functions["ari.analyze_trends"](None, None))
except AttributeError:  # the work is there, and was given nothing
    pass
"""


def imported(program: str) -> set[str]:
    """Run a program under ``python -X importtime``; return the packages that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_the_api_loads_no_library_of_the_work() -> None:
    found = imported(API)

    assert "aiohttp" in found
    assert not found & (HEAVY | {"workers"})


def test_a_worker_that_has_run_no_job_has_loaded_no_library_of_the_work() -> None:
    found = imported(WORKER)

    assert {"arq", "workers"} <= found
    assert not found & (HEAVY | {"aiohttp", "prometheus_client"})


def test_the_first_job_of_a_family_loads_its_libraries_and_no_others() -> None:
    found = imported(WORKER + FIRST_JOB)

    assert {"numpy", "scipy", "ruptures"} <= found
    assert not found & {"networkx", "torch", "aiobotocore"}
