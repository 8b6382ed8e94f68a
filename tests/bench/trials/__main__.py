"""``python -m tests.bench.trials NAME JSON``: run one trial, print what it measured as JSON."""

import asyncio
import importlib
import json
import sys

import uvloop

from app.log import configure_logging
from tests.bench.trials.house import Terms


def main(name: str, given: str) -> None:
    """Run one trial once."""
    configure_logging("WARNING", "json")
    trial = importlib.import_module(f"tests.bench.trials.{name}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(trial.run(Terms(**json.loads(given))))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
