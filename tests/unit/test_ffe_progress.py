"""How a goal comes along: known answers and the edges."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.ffe import Accuracy, BlockSize, GoalStatus, Risk
from app.records.ffe_blocks import FfeBlock
from app.records.ffe_goals import FfeGoal
from workers.families.ffe.prediction import days_needed, predict, probability_of, risk_of
from workers.families.ffe.progress import count_streak, find_next, measure, measure_accuracy

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TODAY = NOW.date()
BEGAN = NOW - timedelta(days=10)


def goal(**changes: Any) -> FfeGoal:
    plain: dict[str, Any] = {"goal_id": "g", "user_id": "u", "timestamp": BEGAN, "description": "A goal"}
    return FfeGoal(**plain | changes)


def block(block_id: str = "b", *, done_days_ago: float | None = None, **changes: Any) -> FfeBlock:
    plain: dict[str, Any] = {
        "block_id": block_id, "user_id": "u", "goal_id": "g", "timestamp": BEGAN, "index": 1, "title": "A block",
        "done_criterion": "It is done.", "size": BlockSize.MEDIUM, "estimated_minutes": 60,
        "completed_at": None if done_days_ago is None else NOW - timedelta(days=done_days_ago),
    }  # fmt: skip
    return FfeBlock(**plain | changes)


@pytest.mark.parametrize(
    ("percent", "elapsed", "remaining", "probability", "risk"),
    [(50, 10, 10, 0.98, Risk.LOW), (20, 10, 10, 0.35, Risk.HIGH), (40, 10, 10, 0.575, Risk.MEDIUM)],
)
def test_the_known_predictions(
    percent: float, elapsed: float, remaining: float, probability: float, risk: Risk
) -> None:
    found = predict(percent, NOW - timedelta(days=elapsed), NOW + timedelta(days=remaining), NOW)

    assert found.probability == pytest.approx(probability, abs=0.005)
    assert found.risk is risk


def test_an_overdue_goal_has_a_tenth_and_is_critical() -> None:
    found = predict(99, BEGAN, NOW - timedelta(seconds=1), NOW)

    assert (found.probability, found.risk) == (0.1, Risk.CRITICAL)


def test_progress_zero_has_no_pace_and_the_lowest_probability_before_the_deadline() -> None:
    found = predict(0, BEGAN, NOW + timedelta(days=10), NOW)

    assert (found.days_needed, found.expected_completion_at) == (None, None)
    assert (found.probability, found.risk) == (0.2, Risk.HIGH)


def test_without_a_deadline_there_is_no_probability_but_a_date() -> None:
    found = predict(25, BEGAN, None, NOW)

    assert (found.probability, found.risk, found.remaining_days) == (None, None, None)
    assert found.expected_completion_at == NOW + timedelta(days=30)


def test_what_is_done_is_certain_even_after_the_deadline() -> None:
    found = predict(100, BEGAN, NOW - timedelta(days=1), NOW)

    assert (found.probability, found.risk, found.expected_completion_at) == (1, Risk.LOW, None)


def test_progress_in_no_time_needs_no_time() -> None:
    assert days_needed(10, 0) == 0


def test_a_pace_that_leads_beyond_the_calendar_has_no_date() -> None:
    assert predict(0.0001, BEGAN, None, NOW).expected_completion_at is None


@given(st.one_of(st.none(), st.floats(0, 1e9)), st.floats(-1e4, 1e4))
def test_a_probability_lies_between_a_tenth_and_one(needed: float | None, remaining: float) -> None:
    assert 0.1 <= probability_of(needed, remaining) <= 1


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 1e4))
def test_more_to_do_is_never_more_likely(needed: float, more: float, remaining: float) -> None:
    assert probability_of(needed + more, remaining) <= probability_of(needed, remaining)


def test_the_risks_begin_at_their_limits() -> None:
    assert [risk_of(one) for one in (0.8, 0.7999, 0.5, 0.4999)] == [Risk.LOW, Risk.MEDIUM, Risk.MEDIUM, Risk.HIGH]


def test_progress_weighs_blocks_by_their_minutes() -> None:
    blocks = [block("a", done_days_ago=1, estimated_minutes=30), block("b", estimated_minutes=90)]

    found = measure(goal(), blocks, 0, NOW)

    assert (found.progress_percent, found.blocks_completed, found.blocks_total) == (25, 1, 2)
    assert (found.minutes_done, found.minutes_left, found.minutes_total) == (30, 90, 120)


def test_a_goal_that_nobody_has_begun_has_zeros_and_no_error() -> None:
    found = measure(goal(), [block()], 0, NOW)

    assert (found.progress_percent, found.streak_days, found.minutes_spent) == (0, 0, 0)
    assert (found.velocity.days, found.velocity.blocks_per_day) == (11, 0)
    assert found.accuracy == Accuracy()
    assert found.last_activity_at == BEGAN


def test_accuracy_compares_what_took_a_known_time() -> None:
    blocks = [block(actual_minutes=90), block(actual_minutes=30), block()]

    found = measure_accuracy(blocks)

    assert (found.blocks, found.estimated_minutes, found.actual_minutes) == (2, 120, 120)
    assert (found.ratio, found.mean_error_percent) == (1, 50)


@pytest.mark.parametrize(
    ("days_ago", "streak"), [([], 0), ([0], 1), ([1], 1), ([2], 0), ([0, 1, 2, 4], 3), ([1, 2], 2), ([0, 2], 1)]
)
def test_a_streak_ends_today_or_yesterday(days_ago: list[int], streak: int) -> None:
    assert count_streak({TODAY - timedelta(days=ago) for ago in days_ago}, TODAY) == streak


def test_a_streak_reaches_across_a_leap_day() -> None:
    days = {date(2028, 2, 28), date(2028, 2, 29), date(2028, 3, 1)}

    assert count_streak(days, date(2028, 3, 1)) == 3


def test_the_next_block_waits_for_nothing_open() -> None:
    blocks = [
        block("a", index=1, done_days_ago=1),
        block("b", index=2, depends_on=("c",)),
        block("c", index=3, depends_on=("a", "gone")),
    ]

    found = find_next(blocks)

    assert found is not None
    assert found.block_id == "c"


def test_the_soonest_scheduled_block_comes_next_then_the_lowest_index() -> None:
    late, soon = NOW + timedelta(days=2), NOW + timedelta(days=1)
    blocks = [block("a", scheduled_start=late), block("b", index=2, scheduled_start=soon), block("c", index=0)]

    assert getattr(find_next(blocks), "block_id", None) == "b"
    assert getattr(find_next([block("x", index=2), block("y", index=1)]), "block_id", None) == "y"


def test_blocks_that_wait_for_each_other_have_no_next() -> None:
    assert find_next([block("a", depends_on=("b",)), block("b", depends_on=("a",))]) is None


@pytest.mark.parametrize(("blocks", "is_due"), [(4, False), (5, True), (6, True)])
def test_a_stop_is_due_after_five_blocks_of_a_day(blocks: int, is_due: bool) -> None:
    assert measure(goal(), [block()], blocks, NOW).is_stop_due is is_due


@pytest.mark.parametrize(("days", "is_stalled"), [(13.99, False), (14, True)])
def test_an_active_goal_stalls_after_fourteen_days(days: float, is_stalled: bool) -> None:
    began = NOW - timedelta(days=30)
    blocks = [block("a", done_days_ago=days, timestamp=began), block("b", timestamp=began)]

    assert measure(goal(timestamp=began), blocks, 0, NOW).is_stalled is is_stalled
    assert not measure(goal(timestamp=began, status=GoalStatus.PAUSED), blocks, 0, NOW).is_stalled
    assert not measure(goal(timestamp=began), blocks[:1], 0, NOW).is_stalled


def test_a_goal_began_with_its_earliest_sign_of_life() -> None:
    blocks = [block("a", done_days_ago=20)]

    assert measure(goal(timestamp=NOW), blocks, 0, NOW).prediction.elapsed_days == 20
