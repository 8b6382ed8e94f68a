"""One history: what everybody saw during a run. Times are seconds since the epoch, of one machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.chaos.ledger import read_entries

Blow = Literal["kill", "stop", "continue", "terminate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A client's submit. ``status`` 0 is no answer; ``mark`` is in the params, and tells its row without one."""

    mark: str
    asked_at: float
    answered_at: float
    status: int
    job_id: str | None = None
    priority: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """A client's cancel, and how the job stands by the answer (None: it did not say)."""

    job_id: str
    asked_at: float
    answered_at: float
    status: int
    told: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution, as the job itself wrote it down. Without an end its process was killed, or hangs."""

    job_id: str
    attempt: int
    fence: int
    claim: str
    pid: int
    began_at: float
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a job's row, as a trigger of the database wrote it down. ``before`` None is the insert."""

    seq: int
    job_id: str
    before: str | None
    after: str
    attempts_before: int
    attempts: int
    claim_before: str | None
    claim: str | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job's row at the end. ``result_attempt`` is the attempt that the stored result itself names."""

    job_id: str
    mark: str
    status: str
    attempts: int
    interruptions: int = 0
    releases: int = 0
    result_attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A row of ``task_attempts``."""

    job_id: str
    attempt: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """What was done to a process."""

    who: str
    pid: int
    blow: Blow
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the checker looks at."""

    asks: Sequence[Ask] = ()
    revokes: Sequence[Revoke] = ()
    runs: Sequence[Run] = ()
    changes: Sequence[Change] = ()
    rows: Sequence[Row] = ()
    noted: Sequence[Noted] = ()
    strikes: Sequence[Strike] = ()


def read_clients(paths: Iterable[Path]) -> tuple[list[Ask], list[Revoke]]:
    """Read what clients wrote down."""
    asks, revokes = [], []
    for path in paths:
        for entry in read_entries(path):
            facts = _without(entry, "what", "at")
            if entry["what"] == "ask":
                asks.append(Ask(**facts, answered_at=entry["at"]))
            else:
                revokes.append(Revoke(**facts, answered_at=entry["at"]))
    return asks, revokes


def read_runs(path: Path) -> list[Run]:
    """Pair the begins and ends that jobs wrote down, in the order of the begins."""
    begun: dict[tuple[str, int, int], Run] = {}
    again: list[Run] = []
    for entry in read_entries(path):
        key = (entry["job_id"], entry["attempt"], entry["pid"])
        if entry["what"] == "begin":
            if key in begun:  # the same attempt once more: the checker must see both
                again.append(begun[key])
            begun[key] = Run(**_without(entry, "what", "at"), began_at=entry["at"])
        else:
            open_run = begun[key]
            facts = {name: getattr(open_run, name) for name in Run.__dataclass_fields__}
            begun[key] = Run(**facts | {"ended_at": entry["at"]})
    return sorted([*again, *begun.values()], key=lambda run: run.began_at)


def _without(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in names}
