"""Blocks find their places in working windows."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.records.ffe_blocks import Engagement
from workers.families.ffe.agenda import WINDOWS, Agenda, next_quarter

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
FREE = Agenda([], Counter())


def at(hour: int, minute: int = 0, *, day: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def test_blocks_follow_each_other_and_none_lies_across_noon() -> None:
    assert FREE.place([90, 60, 60], MONDAY, None) == [at(9), at(10, 30), at(13)]


def test_after_five_blocks_the_day_is_over() -> None:
    assert FREE.place([15] * 6, MONDAY, None)[-1] == at(9, day=1)


def test_what_was_finished_today_counts_among_the_five() -> None:
    agenda = Agenda([], Counter({date(2026, 6, 1): 4}))

    assert agenda.place([15, 15], MONDAY, None) == [at(9), at(9, day=1)]


def test_nobody_works_at_the_weekend() -> None:
    assert FREE.place([60], at(16, 30, day=4), None) == [at(9, day=7)]


def test_engagements_are_gone_around_and_count_among_the_five() -> None:
    agenda = Agenda([Engagement(start=at(9, 30), minutes=60), Engagement(start=at(9, 45), minutes=15)], Counter())

    assert agenda.place([30, 60, 60, 60], MONDAY, None) == [at(9), at(10, 30), at(13), at(9, day=1)]


def test_a_block_that_ends_at_the_deadline_fits_and_one_minute_later_does_not() -> None:
    assert FREE.place([60, 60], MONDAY, at(11)) == [at(9), at(10)]
    assert FREE.place([60, 60], MONDAY, at(11) - timedelta(minutes=1)) == [at(9)]


def test_after_the_deadline_nothing_has_a_place() -> None:
    assert FREE.place([15], MONDAY, MONDAY - timedelta(days=400)) == []


@given(
    durations=st.lists(st.integers(3, 18).map(lambda grains: grains * 5), max_size=40),
    engagements=st.lists(st.tuples(st.integers(0, 14 * 24 * 4), st.integers(15, 90)), max_size=20),
    since=st.integers(0, 14 * 24 * 4),
)
def test_a_schedule_keeps_to_windows_engagements_order_and_five_a_day(
    durations: list[int], engagements: list[tuple[int, int]], since: int
) -> None:
    busy = [
        Engagement(start=MONDAY + quarter * timedelta(minutes=15), minutes=length) for quarter, length in engagements
    ]
    begin = MONDAY + since * timedelta(minutes=15)

    starts = Agenda(busy, Counter()).place(durations, begin, None)

    spans = [(start, start + timedelta(minutes=length)) for start, length in zip(starts, durations, strict=True)]
    assert all(end <= after for (_, end), (after, _) in pairwise(spans))
    for start, end in spans:
        assert start >= begin
        assert start.weekday() < 5
        assert any(opens <= start.timetz() and end.timetz() <= closes for opens, closes in WINDOWS)
        assert not any(start < one.start + timedelta(minutes=one.minutes) and one.start < end for one in busy)
    assert all(count <= 5 for count in Counter(start.date() for start in starts).values())


@given(durations=st.lists(st.integers(15, 90), min_size=1, max_size=20), since=st.integers(0, 30_000))
def test_a_schedule_that_begins_at_its_own_first_start_is_the_same_again(durations: list[int], since: int) -> None:
    starts = FREE.place(durations, MONDAY + timedelta(minutes=since), None)

    assert FREE.place(durations, starts[0], None) == starts


@pytest.mark.parametrize(("minute", "rounded"), [(0, 0), (1, 15), (15, 15), (46, 60)])
def test_times_are_rounded_up_to_a_quarter(minute: int, rounded: int) -> None:
    assert next_quarter(at(9, minute)) == at(9) + timedelta(minutes=rounded)
