"""Short forms of the scenarios: real processes killed, stopped and cut off; ``make chaos`` plays the long ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.figure import Figure
from tests.chaos.scenarios.crashes import OF_A_WORKER, OF_THE_API, crashes
from tests.chaos.scenarios.deploys import deploys
from tests.chaos.scenarios.links import links
from tests.chaos.scenarios.outages import power_lost, redis_emptied, redis_out, sql_out
from tests.chaos.scenarios.races import races
from tests.chaos.scenarios.rescue import false_rescues, rescue
from tests.chaos.scenarios.schedulers import schedulers
from tests.chaos.scenarios.zombies import zombies
from tests.support.postgres_server import PostgresUnderTest

pytestmark = pytest.mark.timeout(300)  # a limit, not an expectation: a busy machine starts a process slowly


def missed(figures: list[Figure]) -> list[Figure]:
    """Return the figures that do not reach their targets."""
    return [figure for figure in figures if figure.reached is False]


async def test_jobs_of_a_killed_worker_start_again_within_a_lease_and_two_seconds(tmp_path: Path) -> None:
    figures = await rescue(tmp_path, rounds=1, jobs=20, lease_s=2.0)

    assert [figure for figure in missed(figures) if "half" not in figure.name] == []
    assert figures[0].value == 20


async def test_a_zombie_cannot_settle_what_another_worker_has_completed(tmp_path: Path) -> None:
    figures = await zombies(tmp_path, rounds=1, jobs=100, stop_s=2.5, lease_s=1.0)

    assert missed(figures) == []


async def test_a_crash_between_any_two_steps_loses_nothing(tmp_path: Path) -> None:
    figures = await crashes(tmp_path, times=1)

    assert missed(figures) == []
    assert figures[0].value == len(OF_THE_API) + len(OF_A_WORKER)


async def test_a_redis_that_was_emptied_is_refilled_and_nothing_runs_twice_at_once(tmp_path: Path) -> None:
    figures = await redis_emptied(tmp_path, waiting=500, running=10, hold_s=5.0, lease_s=3.0)

    assert missed(figures) == []


@pytest.fixture
def postgres_url(postgres: PostgresUnderTest) -> Iterator[str]:
    """A database of its own, dropped afterwards: the journal changes its tables."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.mark.postgresql
async def test_submits_are_refused_while_sql_is_out_and_all_goes_on_after_it(tmp_path: Path, postgres_url: str) -> None:
    figures = await sql_out(tmp_path, database_url=postgres_url, out_s=2.5, lease_s=3.0)

    assert missed(figures) == []


@pytest.mark.chaos
async def test_a_worker_that_stops_or_blocks_for_less_than_its_lease_keeps_its_jobs(tmp_path: Path) -> None:
    assert missed(await false_rescues(tmp_path, rounds=1, jobs=20, stop_s=1.2, lease_s=4.0)) == []


@pytest.mark.chaos
async def test_redis_may_be_out_while_submits_are_accepted_and_workers_stay_up(tmp_path: Path) -> None:
    assert missed(await redis_out(tmp_path, out_s=4.0, lease_s=3.0)) == []


@pytest.mark.chaos
async def test_a_redis_that_lost_the_tail_of_its_file_loses_no_job(tmp_path: Path) -> None:
    assert missed(await power_lost(tmp_path, jobs=500, lease_s=2.0)) == []


@pytest.mark.chaos
async def test_cancel_and_completion_have_one_winner_and_tell_both_the_truth(tmp_path: Path) -> None:
    assert missed(await races(tmp_path, count=300)) == []


@pytest.mark.chaos
async def test_a_rolling_deploy_costs_no_client_error_and_no_attempt(tmp_path: Path) -> None:
    assert missed(await deploys(tmp_path, rounds=1)) == []


@pytest.mark.chaos
async def test_bad_links_lose_nothing_and_heal(tmp_path: Path) -> None:
    assert missed(await links(tmp_path, times=6, harm_s=1.0, lease_s=3.0)) == []


@pytest.mark.chaos
async def test_schedulers_that_are_killed_submit_every_tick_once(tmp_path: Path) -> None:
    assert missed(await schedulers(tmp_path, days=1, kills=5)) == []
