"""The history checker: what the service promises, as rules over one :class:`~tests.chaos.history.History`.

Each rule is a function that yields what is wrong; :data:`RULES` names them all. Nothing here knows how the
service keeps its promises.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.jobs.status import FINAL, LIVE, TRANSITIONS, Status
from tests.chaos.history import Ask, Change, History, Run

SLACK_S = 2.0  # what arrived or started this close together has no order that anybody could hold us to
CALM_S = 12.0  # after a strike: until then jobs come back from the dead, in any order

_ALLOWED_ANSWERS = {0, 201, 202, 503}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken promise."""

    rule: str
    job_id: str
    detail: str


def check(history: History) -> list[Fault]:
    """Return every broken promise; none means that the history is good."""
    return [
        Fault(rule=name, job_id=job_id, detail=detail)
        for name, rule in RULES.items()
        for job_id, detail in rule(history)
    ]


Wrong = Iterator[tuple[str, str]]  # job id, detail


def accepted(history: History) -> dict[str, Ask]:
    """Return the submits that were answered with a 2xx, by job id."""
    return {ask.job_id: ask for ask in history.asks if ask.job_id is not None and 200 <= ask.status < 300}


def _lost(history: History) -> Wrong:
    rows = {row.job_id for row in history.rows}
    for job_id, ask in accepted(history).items():
        if job_id not in rows:
            yield job_id, f"{ask.mark} was accepted with {ask.status}, but has no row"


def _invented(history: History) -> Wrong:
    marks = {ask.mark: ask for ask in history.asks}
    seen: Counter[str] = Counter(row.mark for row in history.rows)
    for row in history.rows:
        ask = marks.get(row.mark)
        if ask is None:
            yield row.job_id, f"nobody submitted {row.mark!r}"
        elif ask.job_id not in (None, row.job_id):
            yield row.job_id, f"{row.mark} was answered as {ask.job_id}"
        if seen[row.mark] > 1:
            yield row.job_id, f"{row.mark} was submitted once and has {seen[row.mark]} rows"


def _odd_answer(history: History) -> Wrong:
    for ask in history.asks:
        if ask.status not in _ALLOWED_ANSWERS:
            yield ask.job_id or ask.mark, f"a submit was answered with {ask.status}"


def _unfinished(history: History) -> Wrong:
    for row in history.rows:
        if row.status in LIVE:
            yield row.job_id, f"still {row.status} after {row.attempts} attempts"


def _completed_twice(history: History) -> Wrong:
    for job_id, changes in _changes(history).items():
        ends = [change.after for change in changes if change.after in FINAL]
        if len(ends) > 1:
            yield job_id, f"ended {len(ends)} times: {', '.join(ends)}"
    for (job_id, outcome), count in Counter((noted.job_id, noted.outcome) for noted in history.noted).items():
        if outcome == "completed" and count > 1:
            yield job_id, f"{count} attempts are noted as completed"


def _changed_after_end(history: History) -> Wrong:
    for change in history.changes:
        if change.before in FINAL:
            yield change.job_id, f"{change.before} became {change.after}"


def _illegal_transition(history: History) -> Wrong:
    for job_id, changes in _changes(history).items():
        if changes[0].before is not None or changes[0].after != Status.PENDING:
            yield job_id, f"began as {changes[0].before} → {changes[0].after}"
        for earlier, later in pairwise(changes):
            left, found = _end_of(earlier), _start_of(later)
            if left != found:
                yield job_id, f"was left as {left}, and then found as {found}"
        for change in changes[1:]:
            if change.before in LIVE and not _is_legal(Status(change.before), Status(change.after)):
                yield job_id, f"{change.before} → {change.after}"


def _start_of(change: Change) -> tuple[str | None, int, str | None]:
    return (change.before, change.attempts_before, change.claim_before)


def _end_of(change: Change) -> tuple[str, int, str | None]:
    return (change.after, change.attempts, change.claim)


def _is_legal(before: Status, after: Status) -> bool:
    return after in TRANSITIONS[before] or before is after is Status.PENDING  # another priority or due time


def _attempts_wrong(history: History) -> Wrong:
    for job_id, changes in _changes(history).items():
        for change in changes[1:]:
            is_start = change.after == Status.RUNNING and change.claim != change.claim_before
            if change.attempts - change.attempts_before != int(is_start):
                counted = f"{change.attempts_before} → {change.attempts}"
                yield job_id, f"{change.before} → {change.after} took the attempts {counted}"
    for (job_id, attempt), count in Counter((run.job_id, run.attempt) for run in history.runs).items():
        if count > 1:
            yield job_id, f"attempt {attempt} ran {count} times"


def _unfenced(history: History) -> Wrong:
    stopped = {strike.pid for strike in history.strikes if strike.blow == "stop"}
    for job_id, runs in _runs(history).items():
        for run in runs:
            if run.fence != run.attempt:
                yield job_id, f"attempt {run.attempt} ran under the fencing token {run.fence}"
        for earlier, later in pairwise(runs):
            if later.fence <= earlier.fence and later.pid not in stopped:  # a stopped process begins late
                yield job_id, f"the fencing token {later.fence} came after {earlier.fence}"


def _at_once(history: History) -> Wrong:
    struck: dict[int, float] = {}
    for strike in sorted(history.strikes, key=lambda strike: strike.at):
        if strike.blow in ("kill", "stop"):
            struck.setdefault(strike.pid, strike.at)
    for job_id, runs in _runs(history).items():
        for earlier, later in pairwise(runs):
            is_over = earlier.ended_at is not None and earlier.ended_at <= later.began_at
            if not is_over and struck.get(earlier.pid, float("inf")) > later.began_at:
                yield job_id, f"attempt {later.attempt} began while {earlier.attempt} ran in a sound process"


def _cancel_lied(history: History) -> Wrong:
    rows = {row.job_id: row.status for row in history.rows}
    for revoke in history.revokes:
        status = rows.get(revoke.job_id)
        if 200 <= revoke.status < 300 and status != Status.CANCELLED:
            yield revoke.job_id, f"was told cancelled, and is {status}"
        if revoke.status == 409 and revoke.told in FINAL and status != revoke.told:
            yield revoke.job_id, f"was told {revoke.told}, and is {status}"
        if revoke.status == 404 and status is not None:
            yield revoke.job_id, f"was told unknown, and is {status}"
    revoked = {revoke.job_id for revoke in history.revokes}
    for job_id, status in rows.items():
        if status == Status.CANCELLED and job_id not in revoked:
            yield job_id, "is cancelled, and nobody asked for that"


def _stale_write(history: History) -> Wrong:
    for row in history.rows:
        if row.status == Status.COMPLETED and row.result_attempt != row.attempts:
            yield row.job_id, f"attempt {row.attempts} completed with the result of attempt {row.result_attempt}"


def _completed_unrun(history: History) -> Wrong:
    ran = {(run.job_id, run.attempt) for run in history.runs}
    for row in history.rows:
        if row.status == Status.COMPLETED and (row.job_id, row.attempts) not in ran:
            yield row.job_id, f"attempt {row.attempts} completed and never ran"


def _row_differs(history: History) -> Wrong:
    noted: Counter[tuple[str, str]] = Counter((one.job_id, one.outcome) for one in history.noted)
    changes = _changes(history)
    for row in history.rows:
        last = changes[row.job_id][-1] if row.job_id in changes else None
        if last is not None and (last.after, last.attempts) != (row.status, row.attempts):
            yield row.job_id, f"ended as {last.after}/{last.attempts}, and is {row.status}/{row.attempts}"
        told = (noted[row.job_id, "interrupted"], noted[row.job_id, "released"])
        if told != (row.interruptions, row.releases):
            yield row.job_id, f"notes say {told} interruptions and releases, the row {row.interruptions, row.releases}"
    beyond = {row.job_id: row.attempts for row in history.rows}
    for one in history.noted:
        if one.attempt > beyond.get(one.job_id, 0):
            yield one.job_id, f"attempt {one.attempt} is noted, and there were {beyond.get(one.job_id, 0)}"


def _overtaken(history: History) -> Wrong:
    """Higher priority first, and first in first out inside one, where nothing was struck in between."""
    started = _first_starts(history)
    waited = sorted(
        (started[job_id], ask.asked_at, ask.priority) for job_id, ask in accepted(history).items() if job_id in started
    )
    starts = [start for start, _, _ in waited]
    strikes = sorted(strike.at for strike in history.strikes)
    for job_id, ask in accepted(history).items():
        ready, start = ask.answered_at + SLACK_S, started.get(job_id, 0.0) - SLACK_S
        if ready >= start or _is_disturbed(strikes, ask.asked_at - CALM_S, start + SLACK_S):
            continue
        for _, asked_at, priority in waited[bisect_left(starts, ready) : bisect_right(starts, start)]:
            if priority < ask.priority or (priority == ask.priority and asked_at > ready):
                yield job_id, f"of priority {ask.priority} was overtaken by a later one of {priority}"
                break


def _first_starts(history: History) -> dict[str, float]:
    starts: dict[str, float] = {}
    for change in history.changes:
        if change.after == Status.RUNNING:
            starts.setdefault(change.job_id, change.at)
    return starts


def _is_disturbed(strikes: Sequence[float], since: float, until: float) -> bool:
    return bisect_left(strikes, since) < bisect_right(strikes, until)


def _changes(history: History) -> dict[str, list[Change]]:
    grouped: dict[str, list[Change]] = defaultdict(list)
    for change in sorted(history.changes, key=lambda change: change.seq):
        grouped[change.job_id].append(change)
    return grouped


def _runs(history: History) -> dict[str, list[Run]]:
    grouped: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(history.runs, key=lambda run: run.began_at):
        grouped[run.job_id].append(run)
    return grouped


RULES: dict[str, Callable[[History], Wrong]] = {
    "lost": _lost,
    "invented": _invented,
    "odd_answer": _odd_answer,
    "unfinished": _unfinished,
    "completed_twice": _completed_twice,
    "changed_after_end": _changed_after_end,
    "illegal_transition": _illegal_transition,
    "attempts_wrong": _attempts_wrong,
    "unfenced": _unfenced,
    "ran_twice_at_once": _at_once,
    "cancel_lied": _cancel_lied,
    "stale_write": _stale_write,
    "completed_unrun": _completed_unrun,
    "row_differs": _row_differs,
    "overtaken": _overtaken,
}
