"""The figures of the matching, fitted on real posts by ``tests/bench/edm_matching.py``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each figure counts: BM25, cosine of stems, cosine of character 4-grams and, fused, that of embeddings."""

    rank: tuple[float, ...]
    confidence: tuple[float, ...]
    bias: float


LEXICAL = Weights(rank=(2.453, 6.656, 16.77), confidence=(0.0, 8.348, 8.94), bias=-7.496)
FUSED = Weights(rank=(1.4, 2.0, 8.5, 18.8), confidence=(0.0, 2.0, 4.0, 9.0), bias=-9.0)
