"""Whether a goal is reached in time if it goes on at its average pace. Pure."""

from datetime import datetime, timedelta

from app.jobs.ffe import Prediction, Risk

OVERDUE_PROBABILITY = 0.1

_DAY = timedelta(days=1)


def days_needed(percent: float, elapsed_days: float) -> float | None:
    """Return (100 − p) / (p / elapsed): the days for the rest at the average pace; None at progress 0."""
    return (100 - percent) * max(elapsed_days, 0.0) / percent if percent > 0 else None


def probability_of(needed: float | None, remaining_days: float) -> float:
    """Return how likely ``needed`` days fit into the remaining ones; no pace at all counts as endless days.

    The service's own rule, no statistics: with d days needed, .8 + .2·rem/(d + 1) where d ≤ rem, else
    .2 + .6·rem/(d + 1), clamped to 0–1; .1 once the deadline has passed.
    """
    if remaining_days < 0:
        return OVERDUE_PROBABILITY
    if needed is None:
        return 0.2
    if needed <= remaining_days:
        return min(1.0, 0.8 + 0.2 * remaining_days / (needed + 1))
    return 0.2 + 0.6 * remaining_days / (needed + 1)


def risk_of(probability: float) -> Risk:
    """Return low from .8 on, medium from .5 on, else high."""
    if probability >= 0.8:
        return Risk.LOW
    return Risk.MEDIUM if probability >= 0.5 else Risk.HIGH


def predict(percent: float, began_at: datetime, deadline: datetime | None, now: datetime) -> Prediction:
    """Return the prediction; what is done is in time, whatever the deadline."""
    elapsed = max((now - began_at) / _DAY, 0.0)
    remaining = None if deadline is None else (deadline - now) / _DAY
    needed = days_needed(percent, elapsed)
    is_done = percent >= 100
    probability = None
    if remaining is not None:
        probability = 1.0 if is_done else probability_of(needed, remaining)
    return Prediction(
        elapsed_days=round(elapsed, 4),
        remaining_days=None if remaining is None else round(remaining, 4),
        days_needed=None if needed is None else round(needed, 4),
        expected_completion_at=None if needed is None or is_done else _after(now, needed),
        probability=None if probability is None else round(probability, 4),
        risk=_risk(probability, is_overdue=not is_done and remaining is not None and remaining < 0),
    )


def _risk(probability: float | None, *, is_overdue: bool) -> Risk | None:
    if probability is None:
        return None
    return Risk.CRITICAL if is_overdue else risk_of(probability)


def _after(now: datetime, days: float) -> datetime | None:
    try:
        return now + timedelta(days=days)
    except OverflowError:
        return None
