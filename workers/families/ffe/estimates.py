"""How long blocks take: what the user's history teaches, and what PERT simulation says of the sum. Pure.

All is in logarithms of actual over expected minutes, so that half and double weigh the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from app.jobs.ffe import Estimates
from app.records.ffe_blocks import Experience

PRIOR_SPREAD = 0.25  # of one block; ±2 of it are PERT's optimistic and pessimistic ends: 61 % and 165 %
PRIOR_WEIGHT = 5  # blocks that the prior counts as
MIN_FACTOR, MAX_FACTOR = 0.5, 3.0
SAMPLES = 10_000

_MAX_RATIO = 4.0  # one block beyond this, either way, says more about the clock than about the user


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the user's finished blocks say about the next ones."""

    blocks: int = 0
    factor: float = 1.0
    spread: float = PRIOR_SPREAD


def calibrate(history: Sequence[Experience]) -> Calibration:
    """Return factor and spread of the log ratios, shrunk to the prior that counts as five blocks on schedule.

    The posterior mean of a normal location with known scale, n·x̄/(n + k), and the pooled variance
    (k·σ₀² + Σ(x − x̄)²)/(n + k): Gelman et al., Bayesian Data Analysis, 3rd edition, sections 2.5 and 2.6.
    """
    if not history:
        return Calibration()
    limit = math.log(_MAX_RATIO)
    ratios = np.array([math.log(one.actual_minutes / one.expected_minutes) for one in history]).clip(-limit, limit)
    weight = len(ratios) + PRIOR_WEIGHT
    factor = math.exp(float(ratios.sum()) / weight)
    deviations = float(((ratios - ratios.mean()) ** 2).sum())
    return Calibration(
        blocks=len(ratios),
        factor=min(max(factor, MIN_FACTOR), MAX_FACTOR),
        spread=math.sqrt((PRIOR_WEIGHT * PRIOR_SPREAD**2 + deviations) / weight),
    )


def simulate(goal_id: str, minutes: Sequence[int], calibration: Calibration) -> Estimates:
    """Return mean and quantiles of the sum of blocks over 10,000 simulated plans; the same goal gives the same ones.

    Each block is PERT-beta (Malcolm et al. 1959; shapes as in Vose, Risk Analysis, 2008) between its ends at ±2
    spreads. That the user's factor is itself uncertain stretches all blocks of a plan together, log-normally
    with spread/√(n + k): without it the errors of many blocks would seem to cancel out.
    """
    random = np.random.default_rng(int.from_bytes(blake2b(goal_id.encode(), digest_size=8).digest()))
    low, high = math.exp(-2 * calibration.spread), math.exp(2 * calibration.spread)
    alpha, beta = 1 + 4 * (1 - low) / (high - low), 1 + 4 * (high - 1) / (high - low)
    total = np.zeros(SAMPLES)
    for likely in minutes:  # block by block: a whole matrix of 200 would take 16 MB
        total += likely * (low + (high - low) * random.beta(alpha, beta, SAMPLES))
    total *= random.lognormal(0, calibration.spread / math.sqrt(calibration.blocks + PRIOR_WEIGHT), SAMPLES)
    p50, p80, p95 = np.percentile(total, [50, 80, 95])
    return Estimates(
        expected_minutes=round(float(total.mean()), 1),
        p50_minutes=round(float(p50), 1),
        p80_minutes=round(float(p80), 1),
        p95_minutes=round(float(p95), 1),
        samples=SAMPLES,
        history_blocks=calibration.blocks,
        history_factor=round(calibration.factor, 6),
        spread=round(calibration.spread, 6),
    )
