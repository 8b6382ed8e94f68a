"""A helper goes on after every outage, says so, and does not fill the log with it."""

import pytest
from structlog.testing import capture_logs

from app import steady
from app.errors import Unavailable
from app.steady import steadily


async def test_an_outage_is_told_once_and_again_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "OUTAGE_PAUSE_S", 0)
    times = iter(range(100))  # one second a try
    monkeypatch.setattr(steady, "monotonic", lambda: next(times))
    tries = iter(range(25))

    async def helper() -> None:
        if next(tries, None) is not None:
            raise Unavailable

    async def mend() -> None:
        raise AssertionError("Redis has answered nothing that is wrong")

    with capture_logs() as logs:
        await steadily("the-helper", helper, mend=mend)

    assert [line["event"] for line in logs] == ["helper_interrupted"] * 3
    assert next(tries, None) is None
