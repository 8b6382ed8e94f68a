"""Which open debts press most, and what would settle each. Pure; holds a bounded number of debts at a time."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from heapq import nlargest
from math import log2

from app.jobs.edm import DebtAlert, DebtSeverity, DebtType, Recommendation
from app.records.edm_debts import EdmDebt

MAX_RECOMMENDED = 50
MAX_ALERTS = 100
BACKLOG = 10  # open debts of high severity from which a user is told
MAX_CLAIM = 300

_MAX_NAMED = 20
_WEIGHTS = {DebtSeverity.LOW: 1, DebtSeverity.MEDIUM: 2, DebtSeverity.HIGH: 4, DebtSeverity.CRITICAL: 8}
_DAY_S = 86_400
_ADVICE = {
    DebtType.UNFALSIFIABLE: "Say what would show it wrong, or drop the claim to certainty.",
    DebtType.MISSING_CITATION: "Name the source, as [1], (Name, year), a DOI or a link.",
    DebtType.VAGUE_CLAIM: "Say who, and how many.",
    DebtType.STALE: "Look for a figure of this year.",
    DebtType.CONTRADICTION: "Decide which of the two statements holds, and correct the other.",
    DebtType.FACT_CHECK_MATCH: "Read the fact check, and correct the statement if it affirms the claim.",
}


class Docket:
    """The open debts of a window, taken in one after another."""

    def __init__(self, now: datetime, min_severity: DebtSeverity) -> None:
        self._now = now
        self._least = _WEIGHTS[min_severity]
        self.by_severity = Counter(dict.fromkeys(DebtSeverity, 0))
        self.by_type = Counter(dict.fromkeys(DebtType, 0))
        self.open_by_user: Counter[str] = Counter()
        self._pressing: list[EdmDebt] = []
        self._grave: dict[tuple[DebtSeverity, str], list[str]] = {}

    def take(self, debts: Iterable[EdmDebt]) -> None:
        """Count debts, and keep the most pressing."""
        reported = [debt for debt in debts if _WEIGHTS[debt.severity] >= self._least]
        for debt in reported:
            self.by_severity[debt.severity] += 1
            self.by_type[debt.debt_type] += 1
            self.open_by_user[debt.user_id] += 1
            if debt.severity in (DebtSeverity.HIGH, DebtSeverity.CRITICAL):
                self._grave.setdefault((debt.severity, debt.user_id), []).append(debt.debt_id)
        self._pressing = nlargest(MAX_RECOMMENDED, [*self._pressing, *reported], key=self._order)

    def recommendations(self) -> tuple[Recommendation, ...]:
        """Return the most pressing debts, ranked by :func:`priority`; equal ones by id."""
        return tuple(self._recommend(rank, debt) for rank, debt in enumerate(self._pressing, 1))

    def alerts(self) -> tuple[DebtAlert, ...]:
        """Return an alert for each user with a critical debt or a backlog of high ones, critical ones first."""
        found = [
            _alert(user_id, severity, ids)
            for (severity, user_id), ids in sorted(self._grave.items())
            if severity is DebtSeverity.CRITICAL or len(ids) >= BACKLOG
        ]
        return tuple(sorted(found, key=lambda alert: alert.severity is not DebtSeverity.CRITICAL)[:MAX_ALERTS])

    def _order(self, debt: EdmDebt) -> tuple[float, str]:
        return priority(debt, self._now), debt.debt_id

    def _recommend(self, rank: int, debt: EdmDebt) -> Recommendation:
        advice = _ADVICE[debt.debt_type]
        if debt.severity is DebtSeverity.CRITICAL and debt.debt_type is not DebtType.FACT_CHECK_MATCH:
            advice = f"{_ADVICE[DebtType.FACT_CHECK_MATCH]} {advice}"
        return Recommendation(
            rank=rank,
            priority=round(priority(debt, self._now), 3),
            debt_id=debt.debt_id,
            user_id=debt.user_id,
            debt_type=debt.debt_type,
            severity=debt.severity,
            claim=debt.claim[:MAX_CLAIM],
            interaction_id=debt.interaction_id,
            age_days=round(age_days(debt, self._now), 3),
            occurrences=_occurrences(debt),
            recommendation=advice,
        )


def priority(debt: EdmDebt, now: datetime) -> float:
    """Return severity × age × recurrence: weight · (1 + min(days/30, 3)) · (1 + log2 of the interactions it is in)."""
    age = 1 + min(age_days(debt, now) / 30, 3)
    return _WEIGHTS[debt.severity] * age * (1 + log2(_occurrences(debt)))


def age_days(debt: EdmDebt, now: datetime) -> float:
    """Return how long ago it was said first."""
    return max(0.0, (now - debt.timestamp).total_seconds() / _DAY_S)


def _occurrences(debt: EdmDebt) -> int:
    return max(1, len(debt.seen_in))


def _alert(user_id: str, severity: DebtSeverity, ids: list[str]) -> DebtAlert:
    is_critical = severity is DebtSeverity.CRITICAL
    message = "match a claim that fact-checkers rated false, stance unknown" if is_critical else "are of high severity"
    return DebtAlert(
        user_id=user_id,
        severity=severity,
        kind="critical_debt" if is_critical else "backlog",
        message=f"{len(ids)} open debt{'s' if len(ids) != 1 else ''} of {user_id} {message}.",
        debt_ids=tuple(ids[:_MAX_NAMED]),
    )
