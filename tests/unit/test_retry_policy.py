"""The delay before a retry."""

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.contract import RetryPolicy

seconds = st.floats(min_value=0.001, max_value=1e6)


@given(base_s=seconds, max_s=seconds, retry=st.integers(min_value=0, max_value=10_000))
def test_a_delay_lies_within_a_fifth_of_its_due(base_s: float, max_s: float, retry: int) -> None:
    due_s = min(base_s * 2 ** min(retry, 60), max_s)

    delay_s = RetryPolicy(base_s=base_s, max_s=max_s).delay_s(retry)

    assert 0.8 * due_s * (1 - 1e-9) <= delay_s <= 1.2 * due_s * (1 + 1e-9)


def test_delays_spread_over_the_whole_fifth() -> None:
    delays = [RetryPolicy(base_s=1).delay_s(0) for _ in range(1000)]

    assert min(delays) < 0.85
    assert max(delays) > 1.15


def test_no_delay_is_longer_than_ten_minutes_and_a_fifth_by_default() -> None:
    assert max(RetryPolicy().delay_s(retry) for retry in range(100)) <= 720


def test_delays_double() -> None:
    policy = RetryPolicy(base_s=1)

    assert all(policy.delay_s(retry + 1) > policy.delay_s(retry) for retry in range(8))
