"""The work of ``edm.batch_analysis``: user by user, page by page; each page is found, stored and marked at once."""

from collections import Counter
from datetime import timedelta

from app.jobs import edm
from app.jobs.edm import BatchAnalysisParams, BatchAnalysisResult, UserDebts
from app.records.edm_debts import read_open_debts, store_scan
from app.records.interactions import (
    Interaction,
    InteractionWindow,
    count_unscanned,
    read_interactions,
    read_unscanned_users,
)
from workers.context import Context
from workers.families import work
from workers.families.edm.checks import Checks, load_checks
from workers.families.edm.debts import find_debts, state, texts_to_check
from workers.families.edm.memory import Memory
from workers.families.edm.ranking import Docket

MAX_LISTED_USERS = 500


@work(edm.batch_analysis)
async def batch_analysis(ctx: Context, params: BatchAnalysisParams) -> BatchAnalysisResult:
    """Look through what was not looked through, then report every open debt of the window.

    The report does not depend on which run found a debt, so that a repeated or retried run says the same.
    """
    since = ctx.now - timedelta(days=params.time_window_days)
    window = InteractionWindow(user_id=params.user_id, since=since, until=ctx.now)
    checks = await load_checks(ctx, percent=5)
    scan = _Scan(ctx, checks, window)
    await scan.run()
    docket = Docket(ctx.now, params.min_severity)
    async for debts in read_open_debts(ctx.records.database, params.user_id, since, ctx.now):
        docket.take(debts)
        await ctx.progress(95, f"{docket.by_type.total()} open debts", stage="rank")
    users = sorted({*docket.open_by_user, *scan.scanned_by_user})
    await ctx.progress(100, f"{docket.by_type.total()} open debts", stage="done")
    return BatchAnalysisResult(
        user_id=params.user_id,
        time_window_days=params.time_window_days,
        min_severity=params.min_severity,
        interactions_scanned=scan.scanned_by_user.total(),
        new_debts=scan.new_debts,
        debts_analyzed=docket.by_type.total(),
        debts_by_severity=dict(docket.by_severity),
        debts_by_type=dict(docket.by_type),
        fact_checks_used=len(checks),
        matcher=checks.matcher,
        user_count=len(users),
        users=None
        if params.user_id is not None
        else tuple(_user(name, scan, docket) for name in users[:MAX_LISTED_USERS]),
        resolution_recommendations=docket.recommendations(),
        alerts=docket.alerts(),
        analysis_timestamp=ctx.now,
    )


class _Scan:
    """One walk over the interactions that were not looked through."""

    def __init__(self, ctx: Context, checks: Checks, window: InteractionWindow) -> None:
        self._ctx = ctx
        self._checks = checks
        self._window = window
        self._database = ctx.records.database
        self._total = 0
        self.scanned_by_user: Counter[str] = Counter()
        self.new_debts = 0

    async def run(self) -> None:
        """Walk all users of the window, in the order of their ids."""
        self._total = await count_unscanned(self._database, self._window)
        await self._ctx.progress(6, f"{self._total} interactions to look through", stage="scan")
        async for users in read_unscanned_users(self._database, self._window):
            for user_id in users:
                await self._scan_user(user_id)

    async def _scan_user(self, user_id: str) -> None:
        """Walk one user's interactions, oldest first: those looked through before still say what was claimed."""
        memory = Memory()
        own = InteractionWindow(user_id=user_id, since=self._window.since, until=self._window.until)
        async for page in read_interactions(self._database, own):
            await self._scan_page(user_id, page, memory)

    async def _scan_page(self, user_id: str, page: list[Interaction], memory: Memory) -> None:
        statements = await self._ctx.run_thread(state, page)
        vectors = await self._checks.embed(self._ctx, texts_to_check(statements))
        debts = await self._ctx.run_thread(find_debts, statements, memory, self._checks, vectors)
        fresh = [one.interaction_id for one in page if one.scanned_at is None]
        if not fresh:
            return
        self.new_debts += await store_scan(self._database, debts, interaction_ids=fresh, at=self._ctx.now)
        self.scanned_by_user[user_id] += len(fresh)
        done = self.scanned_by_user.total()
        share = min(1.0, done / max(1, self._total))
        await self._ctx.progress(6 + 84 * share, f"looked through {done} of {self._total} interactions", stage="scan")


def _user(user_id: str, scan: _Scan, docket: Docket) -> UserDebts:
    return UserDebts(
        user_id=user_id,
        interactions_scanned=scan.scanned_by_user[user_id],
        open_debts=docket.open_by_user[user_id],
    )
