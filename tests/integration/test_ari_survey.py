"""The nightly analysis of all active users says in short what the analysis of each says at length."""

from collections.abc import AsyncIterator, Sequence

import pytest

from app.installation import Installation, open_installation
from app.jobs.ari import AnalysisStatus, AnalyzeActiveUsersParams, AnalyzeActiveUsersResult, AnalyzeTrendsParams
from app.jobs.schedules import SCHEDULES
from app.jobs.status import Status
from app.orders import Order
from app.records.ari_snapshots import ARI_SNAPSHOTS, AriSnapshot, read_users
from app.settings import Settings
from tests.integration.test_ari_queries import NOW, snapshot, window
from tests.support.api import ADA_KEY, running_api
from tests.support.run import context_of
from tests.support.workplace import drain, make_worker, row
from workers.cron import Ticker
from workers.families.ari import analyze_active_users, analyze_trends, survey
from workers.settings import worker_settings

pytestmark = pytest.mark.databases("sqlite", "postgresql")

NAME = "active-user-trends"


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Installation]:
    async with open_installation(settings) as installation:
        yield installation


def falling(user_id: str, *, last: float) -> Sequence[AriSnapshot]:
    """Return twelve daily snapshots between .9 and ``last``."""
    return [
        snapshot(user_id=user_id, hours_ago=24 * (12 - day), decision_quality=0.9 + (last - 0.9) * day / 11)
        for day in range(12)
    ]


async def survey_of(house: Installation, **params: int) -> AnalyzeActiveUsersResult:
    return await analyze_active_users(context_of(house, now=NOW), AnalyzeActiveUsersParams(**params))


async def test_each_user_is_judged_as_by_an_analysis_of_their_own_and_the_worst_comes_first(
    house: Installation,
) -> None:
    await house.records.upsert(ARI_SNAPSHOTS, [*falling("steady", last=0.9), *falling("falls", last=0.5)])
    await house.records.upsert(ARI_SNAPSHOTS, [*falling("drops", last=0.8), snapshot(user_id="new")])
    await house.records.upsert(ARI_SNAPSHOTS, [snapshot(user_id="gone", hours_ago=24 * 31)])

    result = await survey_of(house)

    assert [user.user_id for user in result.users] == ["falls", "drops", "new", "steady"]
    assert (result.user_count, result.analyzed_count, result.alerted_count, result.data_points) == (4, 3, 2, 37)
    for user in result.users:
        alone = await analyze_trends(context_of(house, now=NOW), AnalyzeTrendsParams(user_id=user.user_id))
        assert (user.status, user.data_points, user.tendencies) == (alone.status, alone.data_points, alone.tendencies)
        assert user.critical_alerts + user.warning_alerts == len(alone.alerts)
        assert set(user.alerted_metrics) == {alert.metric for alert in alone.alerts}
    assert result.critical_alerts == sum(user.critical_alerts for user in result.users) > 0


async def test_nobody_active_has_zeros(house: Installation) -> None:
    result = await survey_of(house)

    assert (result.user_count, result.data_points, result.users, result.users_omitted) == (0, 0, (), 0)


async def test_a_user_with_one_snapshot_has_insufficient_data(house: Installation) -> None:
    await house.records.upsert(ARI_SNAPSHOTS, [snapshot()])

    result = await survey_of(house)

    assert (result.user_count, result.analyzed_count) == (1, 0)
    assert result.users[0].status is AnalysisStatus.INSUFFICIENT_DATA


async def test_users_beyond_those_listed_are_counted(house: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MAX_LISTED_USERS", 2)
    await house.records.upsert(ARI_SNAPSHOTS, [snapshot(user_id=name) for name in "abcde"])

    result = await survey_of(house)

    assert ([user.user_id for user in result.users], result.users_omitted, result.user_count) == (["a", "b"], 3, 5)


async def test_users_come_once_in_order_whatever_the_batch(house: Installation) -> None:
    await house.records.upsert(
        ARI_SNAPSHOTS, [snapshot(user_id=name, hours_ago=age) for name in "badce" for age in (1, 2)]
    )

    for batch in (1, 2, 5, 6):
        assert [name async for page in read_users(house.database, window(), batch=batch) for name in page] == [*"abcde"]


async def test_the_clock_submits_it_at_four_and_a_worker_runs_it(house: Installation) -> None:
    (schedule,) = [schedule for schedule in SCHEDULES if schedule.name == NAME]
    four = NOW.replace(hour=4)
    ticker = Ticker(SCHEDULES, house.catalogue, house.lifecycle)

    ticks = [await ticker.tick(NAME, four), await ticker.tick(NAME, four)]
    served = worker_settings(house.catalogue, ["ari_analysis"], ticks=False)
    await drain(make_worker(house, served.functions, queues=served.queues, burst=True))

    async with running_api(house.settings, catalogue=house.catalogue) as api:
        shown = (await api.ask("GET", "/api/schedules")).json["schedules"]
    (state,) = [one for one in shown if one["name"] == NAME]
    assert (schedule.cron_text, schedule.catches_up, ticks) == ("0 4 * * *", True, [True, False])
    assert state["last_run"]["status"] == "completed", state
    assert state["last_tick"].startswith("2026-06-01T04:00:00")


async def test_it_is_for_administrators_and_run_by_hand_too(house: Installation) -> None:
    async with running_api(house.settings, catalogue=house.catalogue) as api:
        refused = await api.ask("POST", "/api/tasks/ari/analyze-active-users", key=ADA_KEY, json={"parameters": {}})
        disabled = await api.ask("POST", f"/api/schedules/{NAME}/disable")
        run = await api.ask("POST", f"/api/schedules/{NAME}/run")
        enabled = await api.ask("POST", f"/api/schedules/{NAME}/enable")

    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    assert (disabled.json["next_runs"], len(enabled.json["next_runs"])) == ([], 5)
    assert (run.status, run.json["task_name"]) == (202, "ari.analyze_active_users")


async def test_it_leaves_nothing_behind_when_run_again(house: Installation) -> None:
    await house.records.upsert(ARI_SNAPSHOTS, falling("u", last=0.5))
    kind = house.catalogue.find("ari.analyze_active_users")
    orders = [Order(job_type=kind, params=AnalyzeActiveUsersParams(lookback_days=365), owner="cron") for _ in range(2)]
    submitted = await house.lifecycle.submit(orders)
    served = worker_settings(house.catalogue, ["ari_analysis"], ticks=False)

    await drain(make_worker(house, served.functions, queues=served.queues, burst=True))

    one, two = [await row(house, job.id) for job in submitted]
    assert one.status is two.status is Status.COMPLETED, (one.error, two.error)
    assert one.result["users"] == two.result["users"]
    assert await house.records.count(ARI_SNAPSHOTS) == 12
