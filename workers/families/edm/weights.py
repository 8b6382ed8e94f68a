"""The figures of the matching, fitted on real posts by ``tests/bench/edm_matching.py``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each figure counts: BM25, cosine of stems, cosine of character 4-grams and, fused, that of embeddings."""

    rank: tuple[float, ...]
    confidence: tuple[float, ...]
    bias: float


LEXICAL = Weights(rank=(2.453, 6.656, 16.77), confidence=(0.0, 8.348, 8.94), bias=-7.496)
FUSED = Weights(rank=(0.023, 10.509, 5.697, 20.02), confidence=(0.0, 6.574, 6.674, 11.103), bias=-10.866)
