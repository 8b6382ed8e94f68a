"""The ARI jobs on stored snapshots, on both databases: what SQL counts, and what the jobs say of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, TypeVar, cast

import numpy as np
import pytest
from statsmodels.datasets import nile

from app.database import Database, metadata, open_database
from app.jobs.ari import (
    AggregateSnapshotsParams,
    AlertKind,
    AnalysisStatus,
    AnalyzeTrendsParams,
    AnalyzeTrendsResult,
    Direction,
    Metric,
    MetricSummary,
    Severity,
)
from app.records.ari_snapshots import (
    ARI_SNAPSHOTS,
    AriSnapshot,
    Window,
    measure_extent,
    read_snapshots,
    summarize_metric,
    summarize_users,
)
from app.records.store import Records
from app.settings import Settings
from tests.support.loop_lag import watched_loop
from workers.context import Context
from workers.families.ari import aggregate_snapshots, analyze_trends

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
STALL_S = 0.5  # of the loop at most, on a machine that others use too
T = TypeVar("T")


@dataclass
class Run:
    """What a job is given, for one attempt without a worker around it."""

    records: Records
    now: datetime = NOW
    reports: list[float] = field(default_factory=list)

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        self.reports.append(percent)

    async def run_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, *args)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = open_database(Settings(database_url=database_url))
    tables = [ARI_SNAPSHOTS.table]
    async with database.write() as connection:
        await connection.run_sync(lambda sync: metadata.create_all(sync, tables=tables))
    yield database
    await database.close()


@pytest.fixture
def run(database: Database) -> Run:
    return Run(records=Records(database))


# --- SQL ---------------------------------------------------------------------------------------


async def test_figures_counted_in_sql_are_those_of_numpy(run: Run, database: Database) -> None:
    values = np.random.default_rng(2).random(101)
    await store(run, [snapshot(hours_ago=at, engagement=value) for at, value in enumerate(values)])

    found = await summarize_metric(database, window(hours=1000), Metric.ENGAGEMENT)

    assert found.count == 101
    assert found.latest == values[0]
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.average == pytest.approx(values.mean())
    assert found.stdev == pytest.approx(values.std(ddof=1))
    assert found.quantiles is not None
    assert list(found.quantiles.model_dump().values()) == pytest.approx(np.percentile(values, [5, 25, 50, 75, 95]))


@pytest.mark.parametrize("count", [1, 2, 3, 20, 21])
async def test_quantiles_interpolate_as_numpy_does_whatever_the_count(run: Run, database: Database, count: int) -> None:
    values = np.random.default_rng(count).random(count)
    await store(run, [snapshot(hours_ago=at, engagement=value) for at, value in enumerate(values)])

    found = await summarize_metric(database, window(hours=1000), Metric.ENGAGEMENT)

    assert found.quantiles is not None
    assert list(found.quantiles.model_dump().values()) == pytest.approx(np.percentile(values, [5, 25, 50, 75, 95]))


async def test_values_that_are_close_together_keep_the_digits_of_their_spread(run: Run, database: Database) -> None:
    await store(run, [snapshot(hours_ago=at, engagement=0.9 + at * 1e-9) for at in range(3)])

    found = await summarize_metric(database, window(), Metric.ENGAGEMENT)

    assert found.stdev == pytest.approx(1e-9, rel=1e-4)


async def test_both_ends_of_a_window_belong_to_it_and_nothing_beyond(run: Run, database: Database) -> None:
    await store(run, [snapshot(hours_ago=hours) for hours in (-0.001, 0, 24, 24.001)])

    assert (await measure_extent(database, window(hours=24))).snapshots == 2


async def test_users_come_in_the_order_of_their_ids_whatever_the_batch(run: Run, database: Database) -> None:
    names = [f"user-{at}" for at in range(7)]
    await store(run, [snapshot(user_id=name, hours_ago=at, engagement=0.1 * at) for at, name in enumerate(names)])
    await store(run, [snapshot(user_id="user-3", hours_ago=1, engagement=0.5)])

    batches = [batch async for batch in summarize_users(database, window(), batch=3)]

    assert [[user.user_id for user in batch] for batch in batches] == [names[:3], names[3:6], names[6:]]
    busy = batches[1][0]
    assert busy.aggregated_count == 2
    assert busy.latest_at == NOW - timedelta(hours=1)
    assert busy.averages[Metric.ENGAGEMENT] == pytest.approx(0.4)


async def test_pages_hold_every_snapshot_once_in_the_order_of_time_and_id(run: Run, database: Database) -> None:
    await store(run, [snapshot(f"s{at}", hours_ago=at // 3, engagement=at / 20) for at in range(12)])

    pages = [page async for page in read_snapshots(database, window(), batch=5)]

    assert [len(page.times) for page in pages] == [5, 5, 2]
    column = list(Metric).index(Metric.ENGAGEMENT)
    engagement = [row[column] for page in pages for row in page.scores]
    assert engagement == [at / 20 for at in (10, 11, 9, 6, 7, 8, 3, 4, 5, 0, 1, 2)]  # "s10" and "s11" come before "s9"


# --- ari.aggregate_snapshots -------------------------------------------------------------------


async def test_a_summary_of_one_user_is_about_nobody_else(run: Run) -> None:
    await store(run, [snapshot(engagement=0.2, hours_ago=2), snapshot(engagement=0.6, hours_ago=1)])
    await store(run, [snapshot(user_id="other", engagement=1.0)])

    result = await aggregate_snapshots(context(run), AggregateSnapshotsParams(user_id="u"))

    engagement = result.metrics_summary[Metric.ENGAGEMENT]
    assert result.aggregated_count == engagement.count == 2
    assert (engagement.average, engagement.min, engagement.max, engagement.latest) == (0.4, 0.2, 0.6, 0.6)
    assert result.snapshot_period.start == NOW - timedelta(hours=24)
    assert (result.user_count, result.users) == (1, None)
    assert set(result.metrics_summary) == set(Metric)


async def test_a_snapshot_that_scores_higher_raises_the_average_of_its_metric_alone(run: Run) -> None:
    await store(run, [snapshot(engagement=0.2, hours_ago=2), snapshot(snapshot_id="last", engagement=0.6, hours_ago=1)])
    before = await aggregate_snapshots(context(run), AggregateSnapshotsParams(user_id="u"))

    await store(run, [snapshot(snapshot_id="last", engagement=0.8, hours_ago=1)])
    after = await aggregate_snapshots(context(run), AggregateSnapshotsParams(user_id="u"))

    assert (before.aggregated_count, after.aggregated_count) == (2, 2)
    changed = {metric for metric in Metric if before.metrics_summary[metric] != after.metrics_summary[metric]}
    assert changed == {Metric.ENGAGEMENT}
    assert after.metrics_summary[Metric.ENGAGEMENT].average == pytest.approx(0.5)


async def test_an_empty_window_has_zero_counts_and_no_figures(run: Run) -> None:
    await store(run, [snapshot(hours_ago=25)])

    result = await aggregate_snapshots(context(run), AggregateSnapshotsParams(user_id="u"))

    assert result.aggregated_count == 0
    assert set(result.metrics_summary.values()) == {MetricSummary()}


async def test_a_summary_of_all_users_totals_and_lists_them(run: Run) -> None:
    await store(run, [snapshot(user_id=name, engagement=value) for name, value in (("b", 0.2), ("a", 0.6), ("a", 0.4))])

    result = await aggregate_snapshots(context(run), AggregateSnapshotsParams())

    assert (result.user_id, result.aggregated_count, result.user_count, result.users_omitted) == (None, 3, 2, 0)
    assert result.metrics_summary[Metric.ENGAGEMENT].average == pytest.approx(0.4)
    assert result.users is not None
    assert [(user.user_id, user.aggregated_count) for user in result.users] == [("a", 2), ("b", 1)]
    assert run.reports == sorted(run.reports)
    assert len(run.reports) > 9


async def test_users_beyond_the_five_hundredth_are_counted_and_left_out(run: Run) -> None:
    await store(run, [snapshot(user_id=f"{at:04}") for at in range(503)])

    result = await aggregate_snapshots(context(run), AggregateSnapshotsParams())

    assert result.users is not None
    assert (len(result.users), result.users_omitted, result.user_count) == (500, 3, 503)
    assert result.users[-1].user_id == "0499"


@pytest.mark.databases("sqlite")
@pytest.mark.timeout(180)
async def test_a_hundred_thousand_snapshots_leave_the_event_loop_free(run: Run) -> None:
    random = np.random.default_rng(5).random((100_000, len(Metric)))
    rows = [
        dict(zip(Metric, row.tolist(), strict=True))
        | {"snapshot_id": f"{at:06}", "user_id": f"user-{at % 50}", "timestamp": NOW - timedelta(minutes=at % 40_000)}
        for at, row in enumerate(random)
    ]
    async with database_of(run).write() as connection:
        await connection.execute(ARI_SNAPSHOTS.table.insert(), rows)

    async with watched_loop() as lags:
        result = await aggregate_snapshots(context(run), AggregateSnapshotsParams(time_window_hours=8760))

    assert result.aggregated_count == 100_000
    assert result.user_count == 50
    assert result.metrics_summary[Metric.ENGAGEMENT].average == pytest.approx(random[:, 5].mean())
    assert max(lags) <= STALL_S  # 5 ms on a quiet machine


# --- ari.analyze_trends ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
async def test_fewer_than_two_snapshots_are_insufficient_data(run: Run, count: int) -> None:
    await store(run, [snapshot() for _ in range(count)])

    result = await analyze(run)

    assert result.status is AnalysisStatus.INSUFFICIENT_DATA
    assert (result.data_points, result.trends, result.alerts, result.tendencies) == (count, {}, (), None)


async def test_a_single_snapshot_beyond_a_limit_is_told_although_there_is_no_trend(run: Run) -> None:
    await store(run, [snapshot(ai_reliance=0.95)])

    result = await analyze(run)

    assert result.status is AnalysisStatus.INSUFFICIENT_DATA
    assert [(alert.metric, alert.kind) for alert in result.alerts] == [(Metric.AI_RELIANCE, AlertKind.SNAPSHOT)]


async def test_a_fall_from_90_to_70_is_critical_and_says_by_how_much(run: Run) -> None:
    await store(run, [snapshot(hours_ago=1, autonomy_retention=0.7), snapshot(hours_ago=9, autonomy_retention=0.9)])

    result = await analyze(run)

    trend = result.trends[Metric.AUTONOMY_RETENTION]
    assert result.status is AnalysisStatus.ANALYZED
    assert (trend.first_value, trend.last_value, trend.data_points) == (0.9, 0.7, 2)
    assert trend.change_percent == pytest.approx(-22.2222, abs=1e-4)
    assert trend.direction is Direction.DECREASING
    [alert] = result.alerts
    assert (alert.metric, alert.severity, alert.kind) == (
        Metric.AUTONOMY_RETENTION,
        Severity.CRITICAL,
        AlertKind.CHANGE,
    )


async def test_the_nile_as_decision_quality_breaks_at_1898_and_raises_a_trend_alert(run: Run) -> None:
    years = nile.load_pandas().data
    flow = (years["volume"] / years["volume"].max()).tolist()
    await store(run, [snapshot(hours_ago=24 * (99 - at), decision_quality=value) for at, value in enumerate(flow)])

    result = await analyze(run, lookback_days=365)

    trend = result.trends[Metric.DECISION_QUALITY]
    assert trend.significant
    assert trend.change_point is not None
    assert trend.change_point.index == 28
    day = (trend.change_point.at - (NOW - timedelta(days=99)).replace(hour=0)).days
    assert years["year"].iloc[day] == 1898
    alerts = {(alert.metric, alert.kind): alert.severity for alert in result.alerts}
    assert alerts == {
        (Metric.DECISION_QUALITY, AlertKind.CHANGE): Severity.CRITICAL,
        (Metric.DECISION_QUALITY, AlertKind.TREND): Severity.CRITICAL,
    }
    assert len(run.reports) > 10


async def test_a_break_without_a_significant_trend_raises_nothing(run: Run) -> None:
    levels = [0.5] * 3 + [0.6] * 8
    levels[0], levels[-1] = 0.56, 0.56
    await store(run, [snapshot(hours_ago=24 * (10 - at), engagement=value) for at, value in enumerate(levels)])

    result = await analyze(run)

    assert result.trends[Metric.ENGAGEMENT].change_point is not None
    assert not result.trends[Metric.ENGAGEMENT].significant
    assert result.alerts == ()


async def test_what_rises_for_days_alerts_only_where_more_is_worse(run: Run) -> None:
    rising = [0.4 + 0.002 * at for at in range(20)]
    days = [snapshot(hours_ago=24 * (19 - at), engagement=up, ai_reliance=up) for at, up in enumerate(rising)]
    await store(run, days)

    result = await analyze(run)

    assert {result.trends[metric].direction for metric in (Metric.ENGAGEMENT, Metric.AI_RELIANCE)} == {
        Direction.INCREASING
    }
    [alert] = result.alerts
    assert (alert.metric, alert.kind, alert.severity) == (Metric.AI_RELIANCE, AlertKind.TREND, Severity.WARNING)
    assert alert.decline_percent == pytest.approx(9.5)


async def test_a_significant_trend_that_nobody_could_notice_raises_nothing(run: Run) -> None:
    falling = [0.5 - 0.0001 * at for at in range(20)]
    await store(run, [snapshot(hours_ago=24 * (19 - at), engagement=value) for at, value in enumerate(falling)])

    result = await analyze(run)

    assert result.trends[Metric.ENGAGEMENT].significant
    assert result.alerts == ()


async def test_change_the_input_and_the_result_changes(run: Run) -> None:
    await store(run, [snapshot("a", hours_ago=9, engagement=0.5), snapshot("b", hours_ago=1, engagement=0.5)])
    before = await analyze(run)

    await store(run, [snapshot("b", hours_ago=1, engagement=0.3)])

    after = await analyze(run)
    assert before.alerts == ()
    assert [alert.metric for alert in after.alerts] == [Metric.ENGAGEMENT]


async def test_critical_alerts_come_first(run: Run) -> None:
    await store(run, [snapshot(hours_ago=9, decision_quality=0.8, engagement=0.8)])
    await store(run, [snapshot(hours_ago=1, decision_quality=0.7, engagement=0.4)])

    result = await analyze(run)

    assert [(alert.metric, alert.severity) for alert in result.alerts] == [
        (Metric.ENGAGEMENT, Severity.CRITICAL),
        (Metric.DECISION_QUALITY, Severity.WARNING),
    ]


@pytest.mark.databases("sqlite")
async def test_ten_years_of_days_leave_the_event_loop_free(run: Run) -> None:
    import_module("ruptures")  # from a cold disk its first import takes seconds
    noise = np.random.default_rng(6).random(3649)
    await store(run, [snapshot(hours_ago=24 * at, engagement=value) for at, value in enumerate(noise)])

    async with watched_loop() as lags:
        result = await analyze(run, lookback_days=3650)

    assert result.trends[Metric.ENGAGEMENT].days == 3649
    assert max(lags) <= STALL_S  # 60 ms on a quiet machine


# --- arranging ---------------------------------------------------------------------------------


def snapshot(
    snapshot_id: str | None = None, *, user_id: str = "u", hours_ago: float = 1, **scores: float
) -> AriSnapshot:
    """Return an unremarkable snapshot but for the given scores."""
    moment = NOW - timedelta(hours=hours_ago)
    named: dict[str, Any] = dict.fromkeys(Metric, 0.5) | {name: float(score) for name, score in scores.items()}
    given = {"snapshot_id": snapshot_id or f"{user_id}-{hours_ago}-{sorted(scores.items())}", "user_id": user_id}
    return AriSnapshot.model_validate(given | {"timestamp": moment} | named)


def window(hours: float = 24) -> Window:
    """Return the last hours of all users."""
    return Window(user_id=None, since=NOW - timedelta(hours=hours), until=NOW)


async def store(run: Run, snapshots: Sequence[AriSnapshot]) -> None:
    """Store snapshots as an ingest does."""
    await run.records.upsert(ARI_SNAPSHOTS, snapshots)


def context(run: Run) -> Context:
    """Return the run as what the work declares to take."""
    return cast(Context, run)


def database_of(run: Run) -> Database:
    """Return where the run's records are."""
    return run.records.database


async def analyze(run: Run, *, lookback_days: int = 30) -> AnalyzeTrendsResult:
    """Analyse the user that :func:`snapshot` makes."""
    return await analyze_trends(context(run), AnalyzeTrendsParams(user_id="u", lookback_days=lookback_days))
