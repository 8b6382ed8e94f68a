"""Goals in blocks: templates, passes, and what the validator lets through."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.ffe import Complexity, Intent
from workers.families.ffe.decomposition import (
    MAX_LEAVES,
    MAX_PASSES,
    PARTS,
    Leaf,
    Part,
    Scope,
    apportion,
    find_flaws,
    find_vital,
    leaves_of,
    minutes_of,
    network_of,
    scope,
)
from workers.families.ffe.estimates import MAX_FACTOR, MIN_FACTOR
from workers.families.ffe.plan import size_of
from workers.families.ffe.templates import TEMPLATES, find_intent

COMPLEXITIES = st.sampled_from(list(Complexity))
INTENTS = st.sampled_from(list(Intent))


def decompose(intent: Intent, complexity: Complexity, factor: float = 1) -> tuple[list[Scope], list[Leaf]]:
    passes = list(scope(intent, complexity, minutes_of(complexity, factor)))
    return passes, leaves_of(passes[-1], intent, "Some goal")


def leaf(key: str = "a", *needs: str, **changes: object) -> Leaf:
    plain = Leaf(key=key, path=key, title="t", description="d", criterion="c", minutes=60, needs=needs)
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names the fields


@pytest.mark.parametrize(
    ("description", "intent"),
    [
        ("Learn Spanish", Intent.LEARN),
        ("learn to write novels", Intent.LEARN),
        ("Build a shed", Intent.BUILD),
        ("Finally WRITE my thesis", Intent.WRITE),
        ("Tidy the archive", Intent.ORGANIZE),
        ("Be happier", Intent.DEFAULT),
        ("Learned men", Intent.DEFAULT),
        ("目標を達成", Intent.DEFAULT),
    ],
)
def test_the_first_telling_word_is_the_intent(description: str, intent: Intent) -> None:
    assert find_intent(description) is intent


@pytest.mark.parametrize("intent", Intent)
def test_a_template_shares_out_all_of_time_and_outcome_and_needs_earlier_steps_alone(intent: Intent) -> None:
    template = TEMPLATES[intent]

    assert sum(step.effort for step in template) == sum(step.value for step in template) == 100
    assert all(need < number for number, step in enumerate(template, 1) for need in step.needs)
    assert len({step.title for step in template}) == len(template) == 7


@pytest.mark.parametrize(("complexity", "parts", "hours"), [("simple", 3, 8), ("medium", 5, 16), ("complex", 7, 24)])
@pytest.mark.parametrize("intent", Intent)
def test_a_goal_has_three_five_or_seven_parts_over_8_16_or_24_hours(
    intent: Intent, complexity: str, parts: int, hours: int
) -> None:
    passes, leaves = decompose(intent, Complexity(complexity))

    assert len(passes[0].parts) == parts
    assert all(sum(part.minutes for part in one.parts) == 60 * hours for one in passes)
    assert sum(one.minutes for one in leaves) == 60 * hours
    assert all(count > 1 for count in Counter(one.path.partition(".")[0] for one in leaves).values())


@given(intent=INTENTS, complexity=COMPLEXITIES, factor=st.floats(MIN_FACTOR, MAX_FACTOR))
def test_every_decomposition_of_our_own_passes_the_validator(
    intent: Intent, complexity: Complexity, factor: float
) -> None:
    passes, leaves = decompose(intent, complexity, factor)

    assert find_flaws(leaves) == []
    assert len(passes) <= MAX_PASSES
    assert {one.title.partition(" (")[0] for one in leaves} == {step.title for step in TEMPLATES[intent]}
    assert {int(one.path.partition(".")[0]) for one in leaves} == set(range(1, PARTS[complexity] + 1))


@given(minutes=st.integers(100, 6000))
def test_even_far_larger_goals_end_in_blocks_within_five_passes(minutes: int) -> None:
    passes = list(scope(Intent.BUILD, Complexity.COMPLEX, minutes * 5))

    assert all(part.minutes <= 90 for part in passes[-1].parts)
    assert len(passes) <= MAX_PASSES


def test_a_longer_estimate_makes_more_blocks() -> None:
    assert len(decompose(Intent.BUILD, Complexity.MEDIUM, 2)[1]) > len(decompose(Intent.BUILD, Complexity.MEDIUM)[1])


def test_sessions_of_a_step_follow_each_other_and_the_last_has_the_steps_criterion() -> None:
    _, leaves = decompose(Intent.BUILD, Complexity.COMPLEX)
    core = [one for one in leaves if one.title.startswith("Build the core")]

    assert [one.title for one in core] == [f"Build the core ({at} of {len(core)})" for at in range(1, len(core) + 1)]
    assert core[1].needs == (core[0].key,)
    assert core[-1].criterion == TEMPLATES[Intent.BUILD][3].criterion
    assert len(core[0].needs) == 2  # the design and the workplace


def test_a_key_names_step_and_session_whatever_the_complexity() -> None:
    keys = {complexity: {one.key for one in decompose(Intent.WRITE, complexity)[1]} for complexity in Complexity}

    assert keys[Complexity.SIMPLE] < keys[Complexity.COMPLEX]


@given(total=st.integers(0, 500), weights=st.lists(st.integers(1, 100), min_size=1, max_size=12))
def test_shares_add_up_and_are_off_by_less_than_a_grain(total: int, weights: list[int]) -> None:
    shares = apportion(total * 5, [float(weight) for weight in weights])

    assert sum(shares) == total * 5
    assert all(
        abs(share - total * 5 * weight / sum(weights)) < 5 for share, weight in zip(shares, weights, strict=True)
    )


@given(st.lists(st.tuples(st.integers(15, 90), st.integers(1, 50)), min_size=1, max_size=12))
def test_the_vital_parts_bring_four_fifths_and_none_of_them_is_spare(pieces: list[tuple[int, int]]) -> None:
    whole = sum(value for _, value in pieces)
    parts = [Part(number=1, steps=(0,), minutes=minutes, value=value / whole) for minutes, value in pieces]

    vital = find_vital(parts)

    reached = sum(parts[at].value for at in vital)
    last = max(vital, key=lambda at: (-parts[at].value / parts[at].minutes, at))
    assert reached >= 0.8 - 1e-6
    assert reached - parts[last].value < 0.8


def test_the_vital_parts_take_less_than_their_share_of_time() -> None:
    parts = [Part(number=1, steps=(0,), minutes=minutes, value=value) for minutes, value in [(20, 0.8), (80, 0.2)]]

    assert find_vital(parts) == {0}


@pytest.mark.parametrize(
    ("leaves", "said"),
    [
        ([], "not 0"),
        ([leaf(str(at)) for at in range(MAX_LEAVES + 1)], "not 501"),
        ([leaf(minutes=14)], "15 to 90 minutes, not 14"),
        ([leaf(minutes=91)], "15 to 90 minutes, not 91"),
        ([leaf(criterion="  ")], "a done criterion has"),
        ([leaf(title="")], "a title has"),
        ([leaf(title="x" * 256)], "a title has"),
        ([leaf(description="x" * 2001)], "a description has"),
        ([leaf(path="")], "a path has"),
        ([leaf("a"), leaf("a", path="b")], "the key 'a' is given twice"),
        ([leaf("a"), leaf("b", path="a")], "the path 'a' is given twice"),
        ([leaf("a", "z")], "there is no 'z' to depend on"),
        ([leaf("a", "a")], "wait for each other: a"),
        ([leaf("a", "c"), leaf("b", "a"), leaf("c", "b"), leaf("d")], "wait for each other"),
    ],
)
def test_the_validator_says_what_is_wrong_with_a_proposal(leaves: Sequence[Leaf], said: str) -> None:
    [flaw] = find_flaws(leaves)

    assert said.lower() in flaw.lower()


def test_a_sound_proposal_from_anywhere_has_no_flaw() -> None:
    leaves = [leaf("a", minutes=15), leaf("b", "a", minutes=90), leaf("c", "a", "b")]

    assert find_flaws(leaves) == []
    assert network_of(leaves).critical_path() == ["a", "b", "c"]


def test_sizes_are_small_to_30_medium_to_60_and_large_beyond() -> None:
    assert [size_of(minutes) for minutes in (15, 30, 31, 60, 61, 90)] == [
        "small", "small", "medium", "medium", "large", "large",
    ]  # fmt: skip
