"""Made-up requests to the running service: no answer is a failure of ours, and each is as the document says.

The short form sends a few to every operation; `make fuzz` sends 20,000.
"""

import os
from collections.abc import Iterator

import pytest
import requests
from pydantic import SecretStr
from urllib3.util import Retry

from app.processes import free_port
from app.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.support.fuzzing import Findings, fuzz
from tests.support.service import process

ADA_KEY = "the-key-of-ada"
LONG = 20_000  # cases of the long form, both callers together
SEED = int(os.environ.get("FUZZ_SEED", "20261122"))

pytestmark = pytest.mark.timeout(240)  # a limit, not an expectation


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """The address of an API process, which has a worker beside it."""
    served = settings.model_copy(
        update={
            "port": free_port(),
            "worker_cron": False,
            "api_keys": {"ada": SecretStr(ADA_KEY)},
            "db_auto_upgrade": False,
        }
    )
    address = f"http://127.0.0.1:{served.port}"
    with process(served, "app", "serve"), process(served, "workers"), requests.Session() as session:
        retry = Retry(total=60, connect=60, backoff_factor=0.2, backoff_max=1)
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
        assert session.get(f"{address}/ready", timeout=5).status_code == 200
        yield address


def assert_sound(found: Findings, url: str) -> None:
    assert found.wrong == {}, "\n\n".join(found.wrong.values())
    assert not [status for status in found.statuses if status >= 500]
    assert found.statuses[401] <= found.cases / 10, "most cases must come past the door"
    assert requests.get(f"{url}/ready", timeout=5).status_code == 200


@pytest.mark.parametrize(("key", "cases"), [(ADMIN_KEY, 2), (ADA_KEY, 1)], ids=["admin", "user"])
def test_a_few_made_up_requests_to_every_route_break_nothing(url: str, key: str, cases: int) -> None:
    found = fuzz(url, key, cases=cases, seed=SEED)

    assert_sound(found, url)
    assert found.cases >= 90


@pytest.mark.chaos
@pytest.mark.timeout(6 * 3600)
def test_twenty_thousand_made_up_requests_break_nothing(url: str) -> None:
    total = 0
    for number in range(1000):
        for key in (ADMIN_KEY, ADA_KEY):
            found = fuzz(url, key, cases=40, seed=SEED + number)
            assert_sound(found, url)
            total += found.cases
        if total >= LONG:
            break

    assert total >= LONG
