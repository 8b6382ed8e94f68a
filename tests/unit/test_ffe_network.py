"""Networks of blocks, against brute force and a published instance."""

from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.families.ffe.network import Network

# The project j301_1 of PSPLIB (Kolisch & Sprecher 1997), without its resources: duration and successors by job.
J301_1 = {
    1: (0, [2, 3, 4]), 2: (8, [6, 11, 15]), 3: (4, [7, 8, 13]), 4: (6, [5, 9, 10]), 5: (3, [20]), 6: (8, [30]),
    7: (5, [27]), 8: (9, [12, 19, 27]), 9: (2, [14]), 10: (7, [16, 25]), 11: (9, [20, 26]), 12: (2, [14]),
    13: (6, [17, 18]), 14: (3, [17]), 15: (9, [25]), 16: (10, [21, 22]), 17: (6, [22]), 18: (5, [20, 22]),
    19: (3, [24, 29]), 20: (7, [23, 25]), 21: (2, [28]), 22: (7, [23]), 23: (2, [24]), 24: (3, [30]), 25: (3, [30]),
    26: (7, [31]), 27: (8, [28]), 28: (3, [31]), 29: (7, [32]), 30: (2, [32]), 31: (2, [32]), 32: (0, []),
}  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw up to seven blocks, each needing some of those before it."""
    minutes = draw(st.lists(st.integers(0, 90), min_size=1, max_size=7))
    names = "abcdefg"
    needs = {
        names[at]: tuple(sorted(draw(st.sets(st.sampled_from(names[:at]))))) if at else () for at in range(len(minutes))
    }
    return Network(minutes=dict(zip(names, minutes, strict=False)), needs=needs)


def chains(network: Network) -> list[list[str]]:
    """Return every chain there is, by brute force."""
    found = [[key] for key in network.minutes]
    for chain in found:
        found += [[*chain, key] for key, needs in network.needs.items() if chain[-1] in needs]
    return found


def orders(network: Network) -> list[tuple[str, ...]]:
    """Return every order in which one person may work, by brute force."""
    return [
        order
        for order in permutations(network.minutes)
        if all(set(network.needs[key]) <= set(order[:at]) for at, key in enumerate(order))
    ]


@given(networks())
def test_no_chain_is_longer_than_the_critical_path(network: Network) -> None:
    longest = max(sum(network.minutes[key] for key in chain) for chain in chains(network))

    path = network.critical_path()

    assert network.span == sum(network.minutes[key] for key in path) == longest
    assert all(before in network.needs[after] for before, after in pairwise(path))
    assert all(network.slack(key) == 0 for key in path)
    assert all(network.slack(key) >= 0 for key in network.minutes)
    assert max(start + network.minutes[key] for key, start in network.earliest_starts.items()) == longest


@given(networks())
def test_earliest_starts_are_the_earliest_that_keep_the_order(network: Network) -> None:
    into = {key: [chain[:-1] for chain in chains(network) if chain[-1] == key] for key in network.minutes}

    assert network.earliest_starts == {
        key: max(sum(network.minutes[one] for one in before) for before in befores) for key, befores in into.items()
    }


@given(networks())
def test_the_order_is_the_first_by_rank_of_all_possible_orders(network: Network) -> None:
    order = network.order(lambda key: -ord(key))

    assert tuple(order) == max(orders(network))


def test_the_critical_path_of_psplib_j301_1_is_38_where_resources_do_not_count() -> None:
    names = {job: str(job) for job in J301_1}
    needs = {names[job]: [names[before] for before, (_, after) in J301_1.items() if job in after] for job in J301_1}

    network = Network(minutes={names[job]: minutes for job, (minutes, _) in J301_1.items()}, needs=needs)

    assert network.span == 38
    assert sum(network.minutes[key] for key in network.critical_path()) == 38


def test_a_circle_is_found_and_named() -> None:
    network = Network(minutes={"a": 1, "b": 1, "c": 1}, needs={"a": ["c"], "b": ["a"], "c": ["b"]})

    assert set(network.find_circle()) == {"a", "b", "c"}


@pytest.mark.parametrize("needs", [{"a": [], "b": []}, {"a": [], "b": ["a"]}])
def test_without_a_circle_none_is_found(needs: dict[str, list[str]]) -> None:
    assert Network(minutes={"a": 1, "b": 1}, needs=needs).find_circle() == []
