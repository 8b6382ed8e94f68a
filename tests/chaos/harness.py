"""The harness: a load, random SIGKILLs of everybody but SQL, a drain, and the checker's verdict."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.checker import Fault, accepted, check
from tests.chaos.figure import Figure, fault_figures
from tests.chaos.history import History
from tests.chaos.ledger import count_entries
from tests.chaos.stage import Member, Stage

WIDTH = 24
_CANCELS = 0.03
_WEIGHTS = {"worker": 6, "api": 2, "redis": 2}
_LOOK_S = 0.02
_STUCK_S = 15.0  # without progress for so long, the next kill comes all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run ended."""

    history: History
    faults: Sequence[Fault]
    drained_s: float
    rate: float  # jobs accepted a second

    def figures(self, name: str, *, drain_s: float = 60.0) -> list[Figure]:
        """Return the figures beside their targets."""
        return [
            Figure(name=f"{name}: kills", value=len(self.history.strikes), unit="kills"),
            Figure(name=f"{name}: jobs accepted", value=len(accepted(self.history)), unit="jobs"),
            *fault_figures(name, self.faults),
            Figure(name=f"{name}: drained after the last kill", value=self.drained_s, unit="s", target=drain_s),
            Figure(name=f"{name}: executions that were cut off", value=_cut_off(self.history), unit="runs"),
        ]


async def storm(stage: Stage, *, jobs: int, kills: int, seed: int, patience_s: float = 180.0) -> Verdict:
    """Run a load on a stage that is not started yet, and kill at even steps of its progress.

    The patience is for the drain: what is late, and what is lost, are two things.
    """
    for member in [*stage.apis, *stage.workers]:
        member.start()
    await stage.ready()
    arguments = [str(asked_of(stage)), str(seed), str(jobs), str(WIDTH), str(_CANCELS), *stage.urls]
    client = stage.load("tests.chaos.client", *arguments)
    began = time.monotonic()
    last_kill = await strike_through(stage, client, jobs=jobs, kills=kills, seed=seed)
    loaded = time.monotonic()
    left_s = await stage.drained(patience_s)
    history = await stage.history()
    drained_s = loaded - last_kill + left_s
    return Verdict(history=history, faults=check(history), drained_s=drained_s, rate=jobs / (loaded - began))


async def strike_through(stage: Stage, client: Member, *, jobs: int, kills: int, seed: int) -> float:
    """Kill at even steps of a load's progress until it has ended; return when the last kill was (monotonic)."""
    luck, last_kill = random.Random(seed), time.monotonic()
    client.start()
    for number in range(1, kills + 1):
        await _reach(stage, number * jobs // (kills + 1))
        strike_one(stage, luck)
        stage.restart_dead()
        last_kill = time.monotonic()
        stage.report(f"           kill {number} of {kills}, {count_entries(stage.ledger) // 2} of {jobs} jobs run")
    while client.exit_code is None:
        stage.restart_dead()
        await asyncio.sleep(_LOOK_S)
    assert client.exit_code == 0, client.log.read_text()
    return last_kill


def asked_of(stage: Stage) -> Path:
    """Return the file in which the load writes what it asked and was told."""
    return stage.directory / "client.ndjson"


def strike_one(stage: Stage, luck: random.Random) -> None:
    """SIGKILL a worker, an API process or Redis."""
    match luck.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]:
        case "redis":
            stage.kill_redis()
        case "api" if stage.apis:
            stage.strike(luck.choice(stage.apis), "kill")
        case _:
            stage.strike(luck.choice(stage.workers), "kill")


async def _reach(stage: Stage, goal: int) -> None:
    """Wait until so many jobs were run, or for as long as a stuck system may take."""
    deadline = time.monotonic() + _STUCK_S
    while count_entries(stage.ledger) < 2 * goal and time.monotonic() < deadline:
        stage.restart_dead()
        await asyncio.sleep(_LOOK_S)


def _cut_off(history: History) -> int:
    return sum(run.ended_at is None for run in history.runs)
