"""The short form of the chaos harness: random SIGKILLs under load lose nothing, and the same shows arq's losses."""

from pathlib import Path

import pytest

from tests.chaos.checker import accepted
from tests.chaos.harness import storm
from tests.chaos.plain_arq import arq_storm
from tests.chaos.stage import open_stage

pytestmark = pytest.mark.timeout(300)  # a limit, not an expectation: a busy machine starts a process slowly


@pytest.mark.parametrize("seed", [4])
async def test_random_kills_under_load_lose_nothing_and_complete_nothing_twice(tmp_path: Path, seed: int) -> None:
    async with open_stage(tmp_path, apis=2, workers=2, lease_s=3.0) as stage:
        verdict = await storm(stage, jobs=5000, kills=20, seed=seed)

    assert verdict.faults == []
    assert len(accepted(verdict.history)) >= 5000
    assert len({strike.who for strike in verdict.history.strikes}) >= 3
    assert any(row.interruptions for row in verdict.history.rows), "no kill met a running job: no bite"
    assert verdict.drained_s <= 60


@pytest.mark.chaos
async def test_the_same_kills_make_plain_arq_lose_jobs(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage:
        verdict = await arq_storm(stage, workers=2, jobs=300, kills=4, seed=4, drain_s=10)

    assert verdict.faults, "the harness has no bite"
    assert {fault.rule for fault in verdict.faults} & {"lost", "unfinished", "completed_twice"}
