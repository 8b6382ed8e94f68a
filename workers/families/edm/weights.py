"""The figures of the matching, fitted on real posts by ``tests/bench/edm_matching.py``.

Fitted on the 800 training posts of CLEF CheckThat! 2020 task 2 and its 10,375 verified claims, both without titles.
Five-fold cross-validation over posts, folds cut by claim, MAP@5: words alone .8429 without and .8626 with titles;
fused .9016 and .9104.

Confidence rests on a prior, the share of passages that repeat a known claim: the highest of a few at which no
training post whose claim was taken away is called high. Fused that is .02, words alone .1. Of encyclopedia sentences,
on which nothing was fitted, 1.2 % are called high among claims on their own subject and .03 % among others; words
alone 1.4 % of the former. BM25 and coverage rank only: they grow with the length of a claim or a text, and say little
about likeness; with coverage in it the confidence of fused figures called a training post high without its claim.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each figure counts: BM25, cosine of stems, of character 4-grams and, fused, coverage and embeddings."""

    rank: tuple[float, ...]
    confidence: tuple[float, ...]
    bias: float


LEXICAL = Weights(rank=(2.453, 6.656, 16.77), confidence=(0.0, 8.348, 8.94), bias=-7.496)
FUSED = Weights(rank=(0.766, 1.628, 11.73, 5.405, 19.909), confidence=(0.0, 5.498, 5.411, 0.0, 12.486), bias=-13.432)
