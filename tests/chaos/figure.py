"""Figures: what a scenario measured, and whether that reaches its target."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.chaos.checker import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure; ``target`` is an upper bound, or a lower one where ``best`` is the most."""

    name: str
    value: float
    unit: str
    target: float | None = None
    best: Literal["least", "most"] = "least"

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.best == "least" else self.value >= self.target


def fault_figures(name: str, faults: Sequence[Fault]) -> list[Figure]:
    """Count what the checker found: one figure for the three great promises and one for everything else."""
    found = Counter(fault.rule for fault in faults)
    lost, twice = found["lost"] + found["unfinished"], found["completed_twice"] + found["changed_after_end"]
    illegal = found["illegal_transition"] + found["attempts_wrong"] + found["row_differs"]
    other = len(faults) - lost - twice - illegal
    return [
        Figure(name=f"{name}: accepted and lost", value=lost, unit="jobs", target=0),
        Figure(name=f"{name}: completed twice in history", value=twice, unit="jobs", target=0),
        Figure(name=f"{name}: illegal transitions", value=illegal, unit="changes", target=0),
        Figure(name=f"{name}: other broken promises", value=other, unit="faults", target=0),
    ]
