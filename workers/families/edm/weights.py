"""The figures of the matching, fitted on real posts by ``tests/bench/edm_matching.py``.

Fitted on the 800 training posts of CLEF CheckThat! 2020 task 2 and its 10,375 verified claims, words alone without
titles, fused with them. Five-fold cross-validation over posts, folds cut by claim, MAP@5: words alone .8429 without
and .8626 with titles; fused .8990 and .9115.

Confidence rests on a prior, the share of passages that repeat a known claim. Fused it is .05, the highest at which no
training post whose claim was taken away is called high; a looser rule (1 %) had called 7.7 % of encyclopedia sentences
on a claim's own subject high, so the 1.9 % measured there since is no blind figure. The .16 % of such sentences that
are called high among claims on other subjects weighed in no choice. Words alone take .1: one in five called 2.4 % of
the former high; 1.4 % since. BM25 ranks only: it grows with the length of a claim, and says little about likeness.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each figure counts: BM25, cosine of stems, cosine of character 4-grams and, fused, that of embeddings."""

    rank: tuple[float, ...]
    confidence: tuple[float, ...]
    bias: float


LEXICAL = Weights(rank=(2.453, 6.656, 16.77), confidence=(0.0, 8.348, 8.94), bias=-7.496)
FUSED = Weights(rank=(0.023, 10.509, 5.697, 20.02), confidence=(0.0, 6.109, 6.133, 12.289), bias=-13.275)
