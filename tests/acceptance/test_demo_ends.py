"""The demo ends in order or is killed, and nothing of it is left; a Redis of somebody else is not its to use."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from app.embedded import EmbeddedRedis
from tests.support.demo import ROOT, running_demo, running_on_terminal
from tests.support.processes import all_end, is_alive
from tests.support.waiting import eventually

STARTING, WORKING, STAYING = "The API starts at", " running ", "Ctrl-C stops everything."

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's death")


@linux_only
@pytest.mark.parametrize("moment", [STARTING, WORKING])
async def test_killed_at_any_moment_it_leaves_no_process(moment: str, tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        demo.read_until(moment)
        children = demo.children()

        demo.process.kill()

        assert children.keys() == {"Redis", "API", "worker"}
        await eventually(lambda: not any(map(is_alive, children.values())))


@pytest.mark.parametrize(("moment", "number"), [(STARTING, signal.SIGINT), (WORKING, signal.SIGTERM)])
def test_told_to_end_at_any_moment_it_leaves_neither_a_process_nor_a_file(
    moment: str, number: signal.Signals, tmp_path: Path
) -> None:
    with running_demo(tmp_path) as demo:
        demo.read_until(moment)
        children = demo.children()
        assert demo.temporary_files()

        demo.process.send_signal(number)

        assert demo.finish() == 128 + number
        assert all_end(children.values())
        assert demo.temporary_files() == []
        assert "Traceback" not in demo.said


@pytest.mark.parametrize("name", ["API", "worker"])
def test_a_process_that_dies_is_named_with_its_last_words(name: str, tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        demo.read_until(WORKING)
        children = demo.children()

        os.kill(children[name], signal.SIGKILL)

        assert demo.finish() == 2
        assert f"error: The {name} has ended with -9. The last that it said:" in demo.said
        assert all_end(children.values())
        assert demo.temporary_files() == []


def test_on_a_terminal_it_stays_with_commands_that_work_until_ctrl_c(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    with running_on_terminal(tmp_path) as demo:
        said = demo.read_until(STAYING)
        children = demo.children()
        submit, listing, records = [line.strip() for line in said.splitlines() if line.startswith("  ")][-3:]

        submitted, listed = (json.loads(shell(command)) for command in (submit, listing))
        assert submitted["task_name"] == "system.echo"
        assert listed["tasks"][0]["task_id"] == submitted["task_id"]
        assert shell(records).count("sample-ben-") == 5
        demo.write(b"\x03")

        assert demo.finish() == 0
        assert all_end(children.values())
        assert demo.temporary_files() == []


# --- whose Redis -------------------------------------------------------------------------------


def test_an_empty_redis_that_redis_url_names_is_used_and_left_empty(tmp_path: Path) -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        with running_demo(tmp_path, REDIS_URL=server.url) as demo:
            demo.read_until(WORKING)
            assert client.exists("jobs:events")

            assert demo.finish() == 0

        assert f"Redis is the one that REDIS_URL names, at {server.url}" in demo.said
        assert client.keys() == []


@pytest.mark.parametrize("is_up", [True, False])
def test_a_redis_that_is_in_use_or_out_is_left_alone(is_up: bool, tmp_path: Path) -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as client:
        client.set("somebody's", "own")
        if not is_up:
            server.kill()

        with running_demo(tmp_path, REDIS_URL=server.url) as demo:
            demo.read_until(WORKING if is_up else STARTING)
            demo.process.terminate()
            demo.finish()

        reason = "holds 1 keys already" if is_up else "does not answer"
        assert f"started for the demo (the one that REDIS_URL names {reason})" in demo.said
        assert not is_up or client.keys() == [b"somebody's"]


def shell(command: str) -> str:
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30
    ).stdout
