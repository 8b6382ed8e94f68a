"""The history checker, on good histories made from a seed and on the same with one thing made wrong."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import RULES, check
from tests.chaos.history import Ask, Change, History, Noted, Revoke, Row, Run, Strike

Luck = random.Random
Spoil = Callable[[History, Luck], History]

LEASE_S = 3.0


class _Story:
    """Writes a good history: jobs that complete, retry, are cancelled, or are rescued from a killed worker."""

    def __init__(self, seed: int) -> None:
        self.luck = Luck(seed)
        self.lists: dict[str, list[Any]] = {name: [] for name in History.__dataclass_fields__}
        self.seq = 0

    def told(self) -> History:
        for number in range(40):
            getattr(self, self.luck.choice(["_completes", "_retries", "_is_cancelled", "_is_rescued"]))(number)
        for number, kind in enumerate(["_completes", "_retries", "_is_cancelled", "_is_rescued"], 40):
            getattr(self, kind)(number)
        self._add("asks", Ask(mark="in vain", asked_at=1.0, answered_at=2.0, status=503))
        return History(**{name: tuple(found) for name, found in self.lists.items()})

    def _add(self, name: str, entry: object) -> None:
        self.lists[name].append(entry)

    def _ask(self, number: int) -> tuple[str, float]:
        job_id, at = f"job-{number:02}", 100.0 + number
        ask = Ask(mark=f"m{number}", asked_at=at, answered_at=at + 0.01, status=202, job_id=job_id)
        self._add("asks", ask)
        self._change(job_id, None, "pending", 0, at)
        return job_id, at

    def _change(self, job_id: str, before: str | None, after: str, attempts: int, at: float) -> None:
        self.seq += 1
        was = max(attempts - (after == "running"), 0)
        claims = [f"claim-{job_id}-{attempt}" if attempt else None for attempt in (was, attempts)]
        change = Change(
            seq=self.seq,
            job_id=job_id,
            before=before,
            after=after,
            attempts_before=was,
            attempts=attempts,
            claim_before=claims[0],
            claim=claims[1],
            at=at,
        )
        self._add("changes", change)

    def _run(self, job_id: str, attempt: int, began_at: float, ended_at: float | None, pid: int = 1) -> None:
        claim = f"claim-{job_id}-{attempt}"
        times: dict[str, Any] = {"began_at": began_at, "ended_at": ended_at}
        self._add("runs", Run(job_id=job_id, attempt=attempt, fence=attempt, claim=claim, pid=pid, **times))

    def _row(self, job_id: str, status: str, attempts: int, **facts: Any) -> None:
        mark = f"m{int(job_id[4:])}"
        self._add("rows", Row(job_id=job_id, mark=mark, status=status, attempts=attempts, **facts))

    def _completes(self, number: int) -> None:
        job_id, at = self._ask(number)
        self._change(job_id, "pending", "running", 1, at + 0.02)
        self._run(job_id, 1, at + 0.03, at + 0.04)
        self._change(job_id, "running", "completed", 1, at + 0.05)
        self._row(job_id, "completed", 1, result_attempt=1)

    def _retries(self, number: int) -> None:
        job_id, at = self._ask(number)
        self._change(job_id, "pending", "running", 1, at + 0.02)
        self._run(job_id, 1, at + 0.03, at + 0.04)
        self._change(job_id, "running", "pending", 1, at + 0.05)
        self._change(job_id, "pending", "running", 2, at + 0.2)
        self._run(job_id, 2, at + 0.21, at + 0.22)
        self._change(job_id, "running", "completed", 2, at + 0.23)
        self._add("noted", Noted(job_id=job_id, attempt=1, outcome="failed"))
        self._add("noted", Noted(job_id=job_id, attempt=2, outcome="completed"))
        self._row(job_id, "completed", 2, result_attempt=2)

    def _is_cancelled(self, number: int) -> None:
        job_id, at = self._ask(number)
        self._change(job_id, "pending", "cancelled", 0, at + 0.02)
        self._add("revokes", Revoke(job_id=job_id, asked_at=at, answered_at=at + 0.03, status=200, told="cancelled"))
        self._row(job_id, "cancelled", 0)

    def _is_rescued(self, number: int) -> None:
        job_id, at = self._ask(number)
        pid = 1000 + number
        self._change(job_id, "pending", "running", 1, at + 0.02)
        self._run(job_id, 1, at + 0.03, None, pid=pid)
        self._add("strikes", Strike(who="worker1", pid=pid, blow="kill", at=at + 0.04))
        self._change(job_id, "running", "running", 2, at + LEASE_S)
        self._run(job_id, 2, at + LEASE_S + 0.01, at + LEASE_S + 0.02)
        self._change(job_id, "running", "completed", 2, at + LEASE_S + 0.03)
        self._add("noted", Noted(job_id=job_id, attempt=1, outcome="interrupted"))
        self._add("noted", Noted(job_id=job_id, attempt=2, outcome="completed"))
        self._row(job_id, "completed", 2, interruptions=1, result_attempt=2)


def without(history: History, name: str, entry: object) -> History:
    kept = tuple(one for one in getattr(history, name) if one is not entry)
    return replace(history, **{name: kept})


def changed(history: History, name: str, entry: Any, **changes: Any) -> History:
    entries = tuple(replace(one, **changes) if one is entry else one for one in getattr(history, name))
    return replace(history, **{name: entries})


def added(history: History, name: str, entry: object) -> History:
    return replace(history, **{name: (*getattr(history, name), entry)})


def after(history: History, change: Change, status: str) -> History:
    """Append one more change to the job of ``change``."""
    more: dict[str, Any] = {"seq": len(history.changes) + 1, "before": change.after, "after": status}
    kept: dict[str, Any] = {"attempts_before": change.attempts, "claim_before": change.claim, "at": change.at + 1}
    return added(history, "changes", replace(change, **more, **kept))


def an_end(history: History, luck: Luck) -> Change:
    return luck.choice([change for change in history.changes if change.after == "completed"])


def a_start(history: History, luck: Luck) -> Change:
    return luck.choice([change for change in history.changes if change.after == "running"])


def a_rescue(history: History, luck: Luck) -> Strike:
    return luck.choice(history.strikes)


def a_cancelled_row(history: History, luck: Luck) -> Row:
    return luck.choice([row for row in history.rows if row.status == "cancelled"])


def a_completed_row(history: History, luck: Luck) -> Row:
    return luck.choice([row for row in history.rows if row.status == "completed"])


def a_second_run(history: History, luck: Luck) -> Run:
    return luck.choice([run for run in history.runs if run.attempt == 2])


def sixty_s_late(history: History, _luck: Luck) -> History:
    """Let one job wait for a minute while all that came after it started."""
    early = next(one for one in history.changes if one.after == "running")
    return changed(replace(history, strikes=()), "changes", early, at=early.at + 60)


BAD: dict[str, tuple[str, Spoil]] = {
    "a row that vanished": ("lost", lambda h, luck: without(h, "rows", luck.choice(h.rows))),
    "a row that nobody asked for": (
        "invented",
        lambda h, luck: added(h, "rows", Row(job_id="stray", mark="stray", status="failed", attempts=0)),
    ),
    "a submit that made two rows": (
        "invented",
        lambda h, luck: added(h, "rows", replace(a_completed_row(h, luck), job_id="twin")),
    ),
    "a submit answered with 500": ("odd_answer", lambda h, luck: changed(h, "asks", h.asks[-1], status=500)),
    "a job that still waits": (
        "unfinished",
        lambda h, luck: changed(h, "rows", a_completed_row(h, luck), status="pending"),
    ),
    "a job that completed twice": (
        "completed_twice",
        lambda h, luck: after(h, an_end(h, luck), "completed"),
    ),
    "two attempts that completed": (
        "completed_twice",
        lambda h, luck: added(h, "noted", Noted(job_id=h.noted[1].job_id, attempt=1, outcome="completed")),
    ),
    "a completed job that failed": ("changed_after_end", lambda h, luck: after(h, an_end(h, luck), "failed")),
    "a job that completed without a start": (
        "illegal_transition",
        lambda h, luck: changed(h, "changes", an_end(h, luck), before="pending"),
    ),
    "a change that is missing": (
        "illegal_transition",
        lambda h, luck: without(h, "changes", a_start(h, luck)),
    ),
    "a start that counted no attempt": (
        "attempts_wrong",
        lambda h, luck: changed(h, "changes", (start := a_start(h, luck)), attempts_before=start.attempts),
    ),
    "an attempt that ran twice": (
        "attempts_wrong",
        lambda h, luck: added(h, "runs", replace(h.runs[0], began_at=900.0, ended_at=901.0)),
    ),
    "a fencing token that is not the attempt": (
        "unfenced",
        lambda h, luck: changed(h, "runs", luck.choice(h.runs), fence=7),
    ),
    "a fencing token that fell": (
        "unfenced",
        lambda h, luck: changed(h, "runs", a_second_run(h, luck), began_at=1.0, ended_at=2.0),
    ),
    "two runs at once": (
        "ran_twice_at_once",
        lambda h, luck: without(h, "strikes", a_rescue(h, luck)),
    ),
    "a holder that was killed too late": (
        "ran_twice_at_once",
        lambda h, luck: changed(h, "strikes", (strike := a_rescue(h, luck)), at=strike.at + 100),
    ),
    "a cancelled job that completed": (
        "cancel_lied",
        lambda h, luck: changed(h, "rows", a_cancelled_row(h, luck), status="completed"),
    ),
    "a cancel told that the job completed": (
        "cancel_lied",
        lambda h, luck: changed(h, "revokes", luck.choice(h.revokes), status=409, told="completed"),
    ),
    "a job that nobody cancelled": ("cancel_lied", lambda h, luck: without(h, "revokes", luck.choice(h.revokes))),
    "a stale result": (
        "stale_write",
        lambda h, luck: changed(h, "rows", luck.choice([row for row in h.rows if row.attempts == 2]), result_attempt=1),
    ),
    "a job that completed and never ran": (
        "completed_unrun",
        lambda h, luck: without(h, "runs", a_second_run(h, luck)),
    ),
    "an interruption that the row does not count": (
        "row_differs",
        lambda h, luck: changed(h, "rows", luck.choice([row for row in h.rows if row.interruptions]), interruptions=0),
    ),
    "a row that is not what was last written": (
        "row_differs",
        lambda h, luck: changed(h, "rows", a_completed_row(h, luck), status="failed"),
    ),
    "a job that all others overtook": ("overtaken", sixty_s_late),
}


@pytest.mark.parametrize("seed", range(5))
def test_a_good_history_passes(seed: int) -> None:
    assert check(_Story(seed).told()) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused_for_what_is_wrong_with_it(name: str, seed: int) -> None:
    rule, spoil = BAD[name]

    faults = check(spoil(_Story(seed).told(), Luck(seed)))

    assert rule in {fault.rule for fault in faults}


def test_every_rule_of_the_checker_refuses_something() -> None:
    assert {rule for rule, _ in BAD.values()} == set(RULES)
