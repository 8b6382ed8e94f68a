"""The stage of the demo: a directory, a Redis, an API and a worker, and their end in order.

Belongs to the main thread, like every child of :mod:`app.processes`. Imported inside the demo alone.
"""

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.demo.redis import RedisInUse, open_redis
from app.errors import Misconfigured, ServiceError
from app.processes import free_port, start_child, stop_child

GRACE_S = 2  # what running jobs get when the demo ends

_LAST_LINES = 8
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A process of the demo; what it says goes to its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ServiceError with its last words if it has ended."""
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
            words = "\n".join(lines) or "nothing"
            raise ServiceError(f"The {self.name} has ended with {code}. The last that it said:\n{words}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs, and where."""

    directory: Path
    redis: RedisInUse
    address: str  # of the API: http://127.0.0.1:<port>
    admin_key: str
    children: tuple[Child, ...]

    @property
    def archives(self) -> Path:
        """The directory that archives are written below."""
        return self.directory / "archive"

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """End the block with a ServiceError as soon as a child has ended.

        A child's end explains every other error, which may well be noticed first: a request that nobody answers.
        """
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch())
                yield
                watcher.cancel()
        except BaseExceptionGroup as errors:
            await asyncio.sleep(_LOOK_S)
            self._check_children()
            raise _first(errors) from None

    async def _watch(self) -> None:
        while True:
            self._check_children()
            await asyncio.sleep(_LOOK_S)

    def _check_children(self) -> None:
        for child in self.children:
            child.check()


@contextmanager
def open_stage(data_dir: Path | None) -> Iterator[Stage]:
    """Start everything, and stop it at the end of the block: API, worker, Redis, then the directory is removed.

    With a ``data_dir`` the data stay there. Nothing here awaits, so that no cancellation comes between the
    start of a thing and the promise to stop it.
    """
    with ExitStack() as closing:
        directory = data_dir or Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="jobs-demo-")))
        directory = _made(directory.absolute())
        redis = closing.enter_context(open_redis(directory / "redis"))
        port, key = free_port(), secrets.token_urlsafe(24)
        environment = _environment(directory, redis.url, port, key)
        worker = closing.enter_context(_running("worker", ["-m", "workers"], environment, directory))
        api = closing.enter_context(_running("API", ["-m", "app", "serve"], environment, directory))
        address = f"http://127.0.0.1:{port}"
        yield Stage(directory=directory, redis=redis, address=address, admin_key=key, children=(api, worker))


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"The demo cannot keep its data there: {error}.") from error
    return directory


@contextmanager
def _running(name: str, arguments: list[str], environment: Mapping[str, str], directory: Path) -> Iterator[Child]:
    log = directory / f"{name.lower()}.log"
    with log.open("wb") as output:
        argv = [sys.executable, *arguments]
        process = start_child(argv, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Child(name=name, process=process, log=log)
    finally:
        stop_child(process, grace_s=GRACE_S + 2)


def _environment(directory: Path, redis_url: str, port: int, key: str) -> dict[str, str]:
    """Return this environment, and every setting in it that would lead a child elsewhere; ``.env`` yields to it."""
    return os.environ | {
        "REDIS_URL": redis_url,
        "DATABASE_URL": "",
        "DB_AUTO_UPGRADE": "true",
        "DATA_DIR": str(directory),
        "ARCHIVE_ROOT": "",
        "MODEL_DIR": "",
        "TEMP_DIR": "",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADMIN_API_KEY": key,
        "API_KEYS": "",
        "LOG_FORMAT": "json",
        "WORKER_GRACE_S": str(GRACE_S),
    }


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep: one clear sentence is enough."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
