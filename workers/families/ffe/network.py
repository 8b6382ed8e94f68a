"""Blocks that wait for each other: circles, the critical path, what comes first. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx

_END = object()  # a node that is no block


@dataclass(frozen=True, kw_only=True)
class Network:
    """An activity-on-node network (Kelley & Walker 1959): how long each block takes, and what it needs first."""

    minutes: Mapping[str, float]
    needs: Mapping[str, Sequence[str]]

    @cached_property
    def _graph(self) -> Any:
        graph = nx.DiGraph()
        graph.add_nodes_from(self.minutes)
        graph.add_edges_from((need, key) for key, needs in self.needs.items() for need in needs)
        return graph

    def find_circle(self) -> list[str]:
        """Return blocks that wait for each other in a circle; empty when there is none."""
        try:
            return [start for start, _end in nx.find_cycle(self._graph)]
        except nx.NetworkXNoCycle:
            return []

    @cached_property
    def tails(self) -> dict[str, float]:
        """How long it takes from the start of each block to the end of all that waits for it."""
        tails: dict[str, float] = {}
        for key in reversed(list(nx.topological_sort(self._graph))):
            tails[key] = self.minutes[key] + max((tails[after] for after in self._graph.successors(key)), default=0)
        return tails

    @cached_property
    def earliest_starts(self) -> dict[str, float]:
        """When each block can begin at the earliest, in minutes from the start, with help enough for all at once."""
        starts: dict[str, float] = {}
        for key in nx.topological_sort(self._graph):
            starts[key] = max((starts[need] + self.minutes[need] for need in self.needs[key]), default=0)
        return starts

    @cached_property
    def span(self) -> float:
        """How long the critical path takes."""
        return max(self.tails.values(), default=0)

    def slack(self, key: str) -> float:
        """Return how long a block can wait without making the whole later."""
        return self.span - self.tails[key] - self.earliest_starts[key]

    def critical_path(self) -> list[str]:
        """Return the longest chain of blocks, the first in the given order where several are."""
        weighted = nx.DiGraph()
        weighted.add_nodes_from(self.minutes)
        weighted.add_edges_from((start, end, {"minutes": self.minutes[start]}) for start, end in self._graph.edges)
        # An edge carries the time of its start, so one more edge to a common end carries that of the last block.
        weighted.add_weighted_edges_from(((key, _END, self.minutes[key]) for key in self.minutes), weight="minutes")
        return [key for key in nx.dag_longest_path(weighted, weight="minutes") if key is not _END]

    def order(self, rank: Callable[[str], Any]) -> list[str]:
        """Return all blocks so that each comes after what it needs, the lowest rank first among those that may."""
        return list(nx.lexicographical_topological_sort(self._graph, key=rank))
