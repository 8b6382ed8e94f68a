"""The search for a better order, against a published instance and brute force; and that it is honest about time."""

import importlib.util
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs.ffe import Intent
from app.records.ffe_blocks import Engagement
from tests.support.searching import hard_project
from tests.unit.test_ffe_network import J301_1
from workers.families.ffe.agenda import Agenda
from workers.families.ffe.decomposition import Leaf
from workers.families.ffe.optimizer import Project, Resource, Verdict, solve
from workers.families.ffe.plan import Plan, make_plan
from workers.families.ffe.scheduling import Frame, project_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ortools") is None, reason="the extra optimizer is not installed"
)

MONDAY = datetime(2026, 6, 1, 8, tzinfo=UTC)

# What each job of J301_1 takes of the four resources, of which there are 12, 13, 4 and 12.
CAPACITIES = (12, 13, 4, 12)
DEMANDS = {
    2: (4, 0, 0, 0), 3: (10, 0, 0, 0), 4: (0, 0, 0, 3), 5: (3, 0, 0, 0), 6: (0, 0, 0, 8), 7: (4, 0, 0, 0),
    8: (0, 1, 0, 0), 9: (6, 0, 0, 0), 10: (0, 0, 0, 1), 11: (0, 5, 0, 0), 12: (0, 7, 0, 0), 13: (4, 0, 0, 0),
    14: (0, 8, 0, 0), 15: (3, 0, 0, 0), 16: (0, 0, 0, 5), 17: (0, 0, 0, 8), 18: (0, 0, 0, 7), 19: (0, 1, 0, 0),
    20: (0, 10, 0, 0), 21: (0, 0, 0, 6), 22: (2, 0, 0, 0), 23: (3, 0, 0, 0), 24: (0, 9, 0, 0), 25: (4, 0, 0, 0),
    26: (0, 0, 4, 0), 27: (0, 0, 0, 7), 28: (0, 8, 0, 0), 29: (0, 7, 0, 0), 30: (0, 7, 0, 0), 31: (0, 0, 2, 0),
}  # fmt: skip


class Silent:
    """A report that nobody reads, of a job that has time."""

    time_left_s = float("inf")

    def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        """Say nothing."""


class Late(Silent):
    """A report of a job that has little time left."""

    time_left_s = 2.0


def run(project: Project, limit_s: float = 20) -> tuple[Verdict, int | None, int | None]:
    found = solve(Silent(), project, limit_s)  # type: ignore[arg-type]  # all it uses
    return found.verdict, found.finish, found.bound


def j301_1(*, with_resources: bool) -> Project:
    resources = [
        Resource(capacity=capacity, demands=tuple(DEMANDS.get(job, (0, 0, 0, 0))[number] for job in J301_1))
        for number, capacity in enumerate(CAPACITIES)
    ]
    return Project(
        durations=tuple(minutes for minutes, _ in J301_1.values()),
        needs=tuple(tuple(before - 1 for before in J301_1 if job in J301_1[before][1]) for job in J301_1),
        resources=tuple(resources) if with_resources else (),
        horizon=158,
    )


def test_psplib_j301_1_takes_43_with_its_resources_and_38_without() -> None:
    assert run(j301_1(with_resources=True)) == (Verdict.OPTIMAL, 43, 43)
    assert run(j301_1(with_resources=False)) == (Verdict.OPTIMAL, 38, 38)


def test_no_resource_is_overdrawn_and_nothing_overtakes_what_it_needs() -> None:
    project = j301_1(with_resources=True)

    starts = solve(Silent(), project, 20).starts  # type: ignore[arg-type]

    assert starts is not None
    for moment in range(43):
        running = [at for at, start in enumerate(starts) if start <= moment < start + project.durations[at]]
        assert all(sum(one.demands[at] for at in running) <= one.capacity for one in project.resources)
    assert all(
        starts[at] >= starts[need] + project.durations[need] for at, needs in enumerate(project.needs) for need in needs
    )


def test_what_cannot_be_done_in_time_is_said_to_be_impossible() -> None:
    project = Project(
        durations=(60, 60), needs=((), ()), resources=(Resource(capacity=1, demands=(1, 1)),), horizon=119
    )

    assert run(project) == (Verdict.INFEASIBLE, None, None)


def test_a_search_keeps_to_its_time_and_says_how_far_it_came() -> None:
    began = time.monotonic()

    verdict, finish, bound = run(hard_project(), 1)

    assert time.monotonic() - began < 15  # building the model and a loaded machine included
    assert verdict in (Verdict.FEASIBLE, Verdict.UNKNOWN)
    assert finish is None or bound is None or bound < finish


def test_a_search_leaves_a_job_half_of_the_time_that_it_has_left() -> None:
    began = time.monotonic()

    found = solve(Late(), hard_project(), 60)  # type: ignore[arg-type]

    assert time.monotonic() - began < 30  # 1 s of search; building the model and a loaded machine included
    assert found.verdict in (Verdict.FEASIBLE, Verdict.UNKNOWN)


# --- a person's blocks -------------------------------------------------------------------------


def leaf(key: str, minutes: int, *needs: str, is_vital: bool = False) -> Leaf:
    return Leaf(
        key=key, path=key, title=key, description="", criterion="Done.", minutes=minutes, needs=needs, is_vital=is_vital
    )


def plan_of(*leaves: Leaf) -> Plan:
    return make_plan("g", Intent.DEFAULT, leaves, passes=[], factor=1, finished=frozenset())


def last_end(frame: Frame, plan: Plan, order: list[str]) -> datetime | None:
    starts = frame.place(order, plan.sequence)
    if len(starts) < len(order):
        return None
    return max(start + timedelta(minutes=plan.sequence[key]) for key, start in starts.items())


def optimum(frame: Frame, plan: Plan) -> datetime | None:
    """Return the earliest end of all orders that keep the needs, by brute force."""
    orders = (
        list(order)
        for order in permutations(plan.sequence)
        if all(set(plan.needs[key]) <= set(order[:at]) for at, key in enumerate(order))
    )
    return min(filter(None, (last_end(frame, plan, order) for order in orders)), default=None)


def searched(frame: Frame, plan: Plan) -> datetime | None:
    """Return when the order ends that the optimizer finds, placed by the agenda."""
    project = project_of(plan, frame, frame.place(list(plan.sequence), plan.sequence))
    if project is None:
        return last_end(frame, plan, list(plan.sequence))
    found = solve(Silent(), project, 20)  # type: ignore[arg-type]
    if found.starts is None:
        return None
    times = dict(zip(plan.sequence, found.starts, strict=True))
    return last_end(frame, plan, sorted(plan.sequence, key=lambda key: times[key]))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(2, 6))
    names = "abcdef"
    return plan_of(
        *(
            leaf(
                names[at],
                draw(st.sampled_from([15, 40, 60, 75, 90])),
                *sorted(draw(st.sets(st.sampled_from(names[:at]), max_size=2)) if at else ()),
                is_vital=draw(st.booleans()),
            )
            for at in range(count)
        )
    )


@given(
    plan=plans(),
    engagements=st.lists(st.tuples(st.integers(4, 4 * 24), st.sampled_from([15, 60, 90])), max_size=4),
    finished=st.integers(0, 5),
    hours=st.none() | st.integers(2, 60),
)
@settings(max_examples=25, deadline=None)
def test_no_order_of_a_persons_blocks_ends_earlier_than_the_one_found(
    plan: Plan, engagements: list[tuple[int, int]], finished: int, hours: int | None
) -> None:
    taken = [Engagement(start=MONDAY + timedelta(minutes=15 * quarter), minutes=long) for quarter, long in engagements]
    agenda = Agenda(taken, Counter({date(2026, 6, 1): finished}))
    deadline = None if hours is None else MONDAY + timedelta(hours=hours)
    frame = Frame(agenda=agenda, since=MONDAY, deadline=deadline)

    assert searched(frame, plan) == optimum(frame, plan)


def test_where_nothing_ends_earlier_the_vital_blocks_come_first() -> None:
    plan = plan_of(leaf("a", 60), leaf("b", 60), leaf("c", 60, is_vital=True))
    frame = Frame(agenda=Agenda([], Counter()), since=MONDAY, deadline=None)
    project = project_of(plan, frame, frame.place(list(plan.sequence), plan.sequence))
    assert project is not None

    found = solve(Silent(), project, 20)  # type: ignore[arg-type]

    assert found.starts is not None
    assert [plan.leaves[key].key for key, start in zip(plan.sequence, found.starts, strict=True) if start == 540] == [
        "c"
    ]
