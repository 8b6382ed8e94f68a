"""One measured figure, and how several rounds become one."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure beside its target. ``spread`` is the distance from the least to the most, as a part of the median."""

    name: str
    value: float
    unit: str
    spread: float | None = None
    target: float | None = None
    is_ceiling: bool = False  # the target is the most, not the least

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.is_ceiling else self.value >= self.target


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the rounds of one trial measured, in their order."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """The distance from the least to the most, as a part of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def figure(self, name: str, unit: str, *, most: float | None = None, least: float | None = None) -> Figure:
        """Return the median as a figure; ``most`` or ``least`` is its target."""
        return Figure(
            name=name,
            value=self.median,
            unit=unit,
            spread=self.spread,
            target=least if most is None else most,
            is_ceiling=most is not None,
        )

    def to(self, other: "Rounds", name: str, *, most: float | None = None, least: float | None = None) -> Figure:
        """Return the median of the ratios, round by round: what ran at the same time met the same noise."""
        ratios = Rounds([mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)])
        return ratios.figure(name, "×", most=most, least=least)
