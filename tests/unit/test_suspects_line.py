"""The line of suspects in one worker: what its end changes, and which deaths convict."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from app.queue.client import Claim
from workers.suspects import Suspects

CLAIM = Claim(id="a-suspect", queue_key="", token="ours", dead=None, is_aborted=False)
NOBODY: Any = SimpleNamespace()


@pytest.fixture
def suspects() -> Suspects:
    return Suspects(["true"], keeper=NOBODY, lifecycle=NOBODY, reader=NOBODY)


@pytest.fixture
def convicted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes = list[int]()

    async def convict(_claim: object, _reader: object, _lifecycle: object, *, exit_code: int) -> bool:
        codes.append(exit_code)
        return True

    monkeypatch.setattr("workers.suspects.convict", convict)
    return codes


async def test_a_worker_that_leaves_takes_in_no_suspect_and_hands_none_over(suspects: Suspects) -> None:
    assert suspects.take(CLAIM)

    suspects.hang_up()

    assert not suspects.take(CLAIM._replace(id="another"))
    assert await suspects._next(None) is None


@pytest.mark.parametrize(("code", "is_leaving"), [(1, False), (0, False), (1, True)])
async def test_only_a_process_that_dies_and_was_not_told_to_leave_convicts(
    suspects: Suspects, convicted: list[int], code: int, is_leaving: bool
) -> None:
    if is_leaving:
        suspects.hang_up()

    process = _end_with(code)
    await suspects._judge(CLAIM, process)

    assert convicted == ([code] if code and not is_leaving else [])


def _end_with(code: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])
