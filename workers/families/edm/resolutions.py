"""The work of ``edm.track_resolutions``: how one user's debts get resolved."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from statistics import fmean, median

from app.jobs import edm
from app.jobs.edm import (
    DebtSeverity,
    OldestDebt,
    SeverityResolutions,
    TrackResolutionsParams,
    TrackResolutionsResult,
    WeekOfDebts,
)
from app.records.edm_debts import EdmDebt, read_ledger
from workers.context import Context
from workers.families import work
from workers.families.edm.ranking import MAX_CLAIM, age_days

_DAY_S = 86_400


@work(edm.track_resolutions)
async def track_resolutions(ctx: Context, params: TrackResolutionsParams) -> TrackResolutionsResult:
    """Count a user's debts, page by page."""
    ledger = Ledger(ctx.now - timedelta(days=params.lookback_days), ctx.now)
    async for debts in read_ledger(ctx.records.database, params.user_id, ledger.since, ctx.now):
        for debt in debts:
            ledger.enter(debt)
        await ctx.progress(50, f"{ledger.entries} debts", stage="read")
    await ctx.progress(100, f"{len(ledger.days)} resolutions", stage="done")
    return TrackResolutionsResult(
        user_id=params.user_id,
        lookback_days=params.lookback_days,
        total_resolutions=len(ledger.days),
        avg_resolution_time_days=round(fmean(ledger.days), 6) if ledger.days else None,
        median_resolution_time_days=round(median(ledger.days), 6) if ledger.days else None,
        total_detected=ledger.detected.total(),
        resolution_rate_percent=_rate(ledger.settled.total(), ledger.detected.total()),
        most_common_resolution_method=min(ledger.methods, key=lambda name: (-ledger.methods[name], name), default=None),
        by_severity={severity: ledger.severity(severity) for severity in DebtSeverity},
        backlog=ledger.backlog,
        oldest=ledger.oldest_debt(),
        weekly_trend=tuple(ledger.weeks()),
        tracking_timestamp=ctx.now,
    )


class Ledger:
    """What happened to debts in a window, both ends included; only figures are kept."""

    def __init__(self, since: datetime, until: datetime) -> None:
        self.since = since
        self._until = until
        self.entries = 0
        self.backlog = 0
        self.days: list[float] = []
        self.methods: Counter[str] = Counter()
        self.detected: Counter[DebtSeverity] = Counter()
        self.settled: Counter[DebtSeverity] = Counter()
        self._oldest: EdmDebt | None = None
        self._detected_in: Counter[datetime] = Counter()
        self._resolved_in: Counter[datetime] = Counter()

    def enter(self, debt: EdmDebt) -> None:
        """Count one debt. A resolution after the window's end has not happened yet."""
        self.entries += 1
        resolved_at = debt.resolved_at if debt.resolved_at is not None and debt.resolved_at <= self._until else None
        if debt.timestamp >= self.since:
            self.detected[debt.severity] += 1
            self.settled[debt.severity] += resolved_at is not None
            self._detected_in[_monday(debt.timestamp)] += 1
        if resolved_at is None:
            self.backlog += 1
            self._oldest = min(filter(None, (self._oldest, debt)), key=lambda one: (one.timestamp, one.debt_id))
        elif resolved_at >= self.since:
            self.days.append(max(0.0, (resolved_at - debt.timestamp).total_seconds() / _DAY_S))
            self._resolved_in[_monday(resolved_at)] += 1
            if debt.resolution_method is not None:
                self.methods[debt.resolution_method] += 1

    def severity(self, severity: DebtSeverity) -> SeverityResolutions:
        """Return the figures of one severity."""
        detected, resolved = self.detected[severity], self.settled[severity]
        return SeverityResolutions(
            detected=detected, resolved=resolved, resolution_rate_percent=_rate(resolved, detected)
        )

    def oldest_debt(self) -> OldestDebt | None:
        """Return the debt that has been open longest."""
        debt = self._oldest
        if debt is None:
            return None
        return OldestDebt(
            debt_id=debt.debt_id,
            claim=debt.claim[:MAX_CLAIM],
            severity=debt.severity,
            age_days=round(age_days(debt, self._until), 3),
        )

    def weeks(self) -> Iterator[WeekOfDebts]:
        """Yield the weeks of the window, oldest first, empty ones too."""
        week = _monday(self.since)
        while week <= self._until:
            yield WeekOfDebts(week_start=week, detected=self._detected_in[week], resolved=self._resolved_in[week])
            week += timedelta(days=7)


def _monday(moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def _rate(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 6) if whole else None
