"""The stage: the service's processes and stores on loopback, and the blows that they are dealt."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from app.database import Database, open_database
from app.embedded import EmbeddedRedis
from app.history.migrate import upgrade
from app.processes import free_port, start_child
from app.settings import Settings
from tests.chaos.history import Blow, History, Strike, read_clients, read_runs
from tests.chaos.journal import count_live, install_journal, read_changes, read_noted, read_rows
from tests.chaos.ledger import ENVIRONMENT
from tests.chaos.trial import QUEUES
from tests.support.environment import environment_of
from tests.support.waiting import eventually

KEY = "the-key-of-chaos"
HEADERS = {"Authorization": f"Bearer {KEY}"}

_START_S = 90.0
_REDIS_LOADS_S = 120.0  # a long append-only file, on a machine that does other things too
_ROOT = Path(__file__).parents[2]
_SIGNALS: dict[Blow, signal.Signals] = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "continue": signal.SIGCONT,
    "terminate": signal.SIGTERM,
}


class Member:
    """One process of the service, which can be struck and started again under the same name."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._command = [sys.executable, "-m", *command]
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        assert self._child is not None
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return self._child.poll() if self._child else 0

    def start(self, **environment: str) -> None:
        """Start, or start again; the log goes on."""
        with self.log.open("ab") as output:
            self._child = start_child(
                self._command,
                env=self._environment | environment,
                cwd=_ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def send(self, blow: Blow) -> None:
        """Send the signal of a blow; a killed process is waited for."""
        assert self._child is not None
        self._child.send_signal(_SIGNALS[blow])
        if blow == "kill":
            self._child.wait(10)

    def close(self) -> None:
        """End the process at once, whatever state it is in: the history is written."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(10)

    def said(self, event: str) -> int:
        """Count the lines of the log that tell of an event."""
        return self.log.read_text(errors="replace").count(f'"{event}"') if self.log.exists() else 0


@dataclass
class Stage:
    """Everything that a scenario plays with. ``report`` gets a line for every blow."""

    settings: Settings
    directory: Path
    redis: EmbeddedRedis
    database: Database
    ports: Sequence[int]
    apis: list[Member]
    workers: list[Member]
    report: Callable[[str], None]
    strikes: list[Strike] = field(default_factory=list)
    began_at: float = field(default_factory=time.time)

    @property
    def ledger(self) -> Path:
        """Where jobs write that they run."""
        return self.directory / "ledger.ndjson"

    @property
    def urls(self) -> list[str]:
        """Where the API processes answer."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def strike(self, member: Member, blow: Blow) -> None:
        """Deal a blow, and write it down beforehand, so that whatever follows from it has its cause."""
        self._note(member.name, member.pid, blow)
        member.send(blow)

    async def stop_between_writes(self, member: Member) -> None:
        """Stop a process while it does not write: stopped with SQLite's lock, it would keep all others from writing."""
        self.strike(member, "stop")
        while not await self._is_writable():
            member.send("continue")
            member.send("stop")

    def note_death(self, member: Member) -> None:
        """Write down that a process has killed itself."""
        self._note(member.name, member.pid, "kill")

    def kill_redis(self) -> None:
        """SIGKILL Redis; its append-only file stays."""
        self._note("redis", self.redis.pid or 0, "kill")
        self.redis.kill()

    def restart_dead(self) -> None:
        """Start again whoever has died, as an orchestrator does."""
        if self.redis.pid is None:
            self.redis.start(within_s=_REDIS_LOADS_S)
        for member in [*self.apis, *self.workers]:
            if member.exit_code is not None:
                member.start()

    def load(self, module: str, *arguments: str) -> Member:
        """Make the process of a load; its module writes what it asks and is told."""
        return Member("client", [module, *arguments], dict(os.environ), self.directory)

    async def history(self) -> History:
        """Collect what everybody saw."""
        asks, revokes = read_clients(sorted(self.directory.glob("client*.ndjson")))
        return History(
            asks=asks,
            revokes=revokes,
            runs=read_runs(self.ledger),
            changes=await read_changes(self.database),
            rows=await read_rows(self.database),
            noted=await read_noted(self.database),
            strikes=tuple(self.strikes),
        )

    async def drained(self, within_s: float) -> float:
        """Wait until every job has ended; return how many seconds that took, infinity if it did not happen."""
        before = time.monotonic()
        while time.monotonic() - before < within_s:
            if await count_live(self.database) == 0:
                return time.monotonic() - before
            await asyncio.sleep(0.05)
        return float("inf")

    async def ready(self) -> None:
        """Wait until every API answers, and every worker serves."""
        await self.ready_apis()
        await eventually(lambda: all(worker.said("worker_started") for worker in self.workers), within=_START_S)

    async def ready_apis(self) -> None:
        """Wait until every API answers."""
        async with aiohttp.ClientSession(headers=HEADERS, timeout=aiohttp.ClientTimeout(total=5)) as session:
            await eventually(lambda: _are_ready(session, self.urls), within=_START_S)

    async def _is_writable(self) -> bool:
        try:
            async with asyncio.timeout(1), self.database.write():
                return True
        except TimeoutError:
            return False

    def _note(self, who: str, pid: int, blow: Blow) -> None:
        self.strikes.append(Strike(who=who, pid=pid, blow=blow, at=time.time()))
        self.report(f"{time.time() - self.began_at:7.2f} s  {blow:<9} {who} ({pid})")


@asynccontextmanager
async def open_stage(
    directory: Path,
    *,
    database_url: str = "",
    apis: int = 1,
    workers: int = 1,
    slots: int = 50,
    report: Callable[[str], None] = lambda _: None,
    redis_url: str | None = None,
    member_database_url: str | None = None,
    **settings: object,
) -> AsyncIterator[Stage]:
    """Set up stores and processes, start nothing but the stores, and end everything with the block.

    ``redis_url`` and ``member_database_url`` put something between the processes and their stores.
    """
    ports = [free_port() for _ in range(apis)]
    with EmbeddedRedis(directory=directory / "redis") as redis:
        plain = Settings(
            _env_file=None,
            **{
                "redis_url": redis.url,
                "database_url": database_url,
                "data_dir": directory,
                "admin_api_key": SecretStr(KEY),
                "log_format": "json",
                "worker_cron": False,
                "lease_s": 9.0,
            }
            | settings,  # type: ignore[arg-type]  # by name
        )
        database = open_database(plain)
        await upgrade(database)
        await install_journal(database)
        changes = {"redis_url": redis_url or redis.url, "database_url": member_database_url or plain.sql_url}
        served = plain.model_copy(update=changes)
        stage = Stage(plain, directory, redis, database, ports, [], [], report)
        for number, port in enumerate(ports, 1):
            stage.apis.append(_api(f"api{number}", served, port, stage))
        for number in range(1, workers + 1):
            stage.workers.append(_worker(f"worker{number}", served, slots, stage))
        try:
            yield stage
        finally:
            for member in [*stage.apis, *stage.workers]:
                member.close()
            await database.close()


def _api(name: str, settings: Settings, port: int, stage: Stage) -> Member:
    environment = environment_of(settings.model_copy(update={"port": port}))
    return Member(name, ["tests.chaos.member", "app", "serve"], environment, stage.directory)


def _worker(name: str, settings: Settings, slots: int, stage: Stage) -> Member:
    command = ["tests.chaos.member", "workers", "--queues", ",".join(QUEUES), "--slots", str(slots)]
    environment = environment_of(settings) | {ENVIRONMENT: str(stage.ledger)}
    return Member(name, command, environment, stage.directory)


async def _are_ready(session: aiohttp.ClientSession, urls: Sequence[str]) -> bool:
    return all([await _is_ready(session, url) for url in urls])


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/ready") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
