"""Whether a series goes anywhere: Mann-Kendall, Theil-Sen, Benjamini-Hochberg. Pure; used by this family alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from workers.families.ari.series import Floats

MIN_DAYS = 10  # Kendall (1975): from here on the normal approximation of S is good
SIGNIFICANCE = 0.05

_Z = 1.959964  # two-sided 5 % of the normal distribution
_DECIMALS = 12

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class MannKendall:
    """The statistic of the Mann-Kendall test and how much it varies by chance."""

    s: float  # pairs that rise minus pairs that fall, −n(n−1)/2 … n(n−1)/2
    variance: float  # of S if all orders were equally likely; 0 when all values are equal

    def p_value(self, inflation: float = 1.0) -> float | None:
        """Return the two-sided p-value, continuity-corrected; None when all values are equal.

        ``inflation`` is how many times larger the variance is because neighbours resemble each other.
        """
        if self.variance <= 0:
            return None
        z = (abs(self.s) - min(1.0, abs(self.s))) / math.sqrt(self.variance * inflation)
        return math.erfc(z / math.sqrt(2))


def pairwise_slopes(days: Floats, values: Floats) -> Floats:
    """Return the slopes between all n(n−1)/2 pairs of points, per day. ``days`` must rise.

    Row by row into one array: 3,650 points take 53 MB for a moment, and milliseconds.
    """
    count = len(values)
    slopes = np.empty(count * (count - 1) // 2)
    start = 0
    for at in range(count - 1):
        stop = start + count - 1 - at
        np.divide(values[at + 1 :] - values[at], days[at + 1 :] - days[at], out=slopes[start:stop])
        start = stop
    return slopes


def mann_kendall(values: Floats, slopes: Floats) -> MannKendall:
    """Return the test of Mann (1945) and Kendall (1975), its variance corrected for ties.

    ``slopes`` are those of :func:`pairwise_slopes`: only their signs count. Var S is
    [n(n−1)(2n+5) − Σ t(t−1)(2t+5)] / 18 over the groups of t equal values.
    """
    count = len(values)
    ties = np.unique(values, return_counts=True)[1]
    tied = float((ties * (ties - 1) * (2 * ties + 5)).sum())
    s = np.count_nonzero(slopes > 0) - np.count_nonzero(slopes < 0)
    return MannKendall(s=float(s), variance=(count * (count - 1) * (2 * count + 5) - tied) / 18)


def theil_sen(slopes: Floats) -> float:
    """Return the slope of Sen (1968), the median of all pairwise slopes. Reorders ``slopes``."""
    return float(np.median(slopes, overwrite_input=True))


def variance_inflation(residuals: Floats) -> float:
    """Return how many times autocorrelation widens S, at least :func:`least_inflation`.

    Hamed & Rao (1998): 1 + 2/(n(n−1)(n−2)) · Σ (n−k)(n−k−1)(n−k−2) ρ(k), over the lags k whose rank
    autocorrelation ρ(k) is significant at 5 %. ``residuals`` are what is left once the change itself, a
    line or a step, is taken out: a step seen as a line would pass for autocorrelation, and hide itself.
    Lags count points, not days. Left to itself the sum can be negative, which would make any series
    significant.
    """
    count = len(residuals)
    ranks = _ranks(residuals.round(_DECIMALS))
    ranks -= ranks.mean()
    spread = float(ranks @ ranks)
    if spread == 0:
        return least_inflation(count)
    lags = np.arange(1, count)
    correlations = np.correlate(ranks, ranks, mode="full")[count:] / spread
    weights = (count - lags) * (count - lags - 1) * (count - lags - 2)
    significant = np.abs(correlations) > _Z / math.sqrt(count)
    weighted = float((weights * correlations)[significant].sum())
    return max(least_inflation(count), 1 + 2 * weighted / (count * (count - 1) * (count - 2)))


def least_inflation(count: int) -> float:
    """Return the least inflation that ``count`` points can vouch for: (1 + r)/(1 − r) with r = 1/√n.

    An autocorrelation r of one standard error cannot be told from none, yet it widens the variance by that
    factor (Bayley & Hammersley 1946). Of 10,000 shuffles of the Nile series the test called 4.1 % significant
    without this floor, and one run of 200 in seven went beyond 5 %; with it 2.7 %, and one run in fifty.
    """
    r = 1 / math.sqrt(count)
    return (1 + r) / (1 - r)


def false_discovery_rates(p_values: Mapping[K, float]) -> dict[K, float]:
    """Return q-values by the same keys: Benjamini & Hochberg (1995), q(i) = min over j ≥ i of p(j)·m/j.

    The metrics of a user rise and fall together; under such positive dependence the procedure holds too
    (Benjamini & Yekutieli 2001).
    """
    rates: dict[K, float] = {}
    least = 1.0
    descending = sorted(p_values, key=lambda key: p_values[key], reverse=True)
    for rank, key in zip(range(len(descending), 0, -1), descending, strict=True):
        least = min(least, p_values[key] * len(descending) / rank)
        rates[key] = least
    return {key: rates[key] for key in p_values}


def _ranks(values: Floats) -> Floats:
    """Return the ranks from 1, the mean rank for equal values."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = ((2 * last - counts + 1) / 2)[where]
    return ranks
