"""The figures of the matching, fitted on real posts by ``tests/bench/edm_matching.py``.

Fitted on the 800 training posts of CLEF CheckThat! 2020 task 2 and its 10,375 verified claims, without titles.
Five-fold cross-validation over posts, folds cut by claim: MAP@5 .8155; .8410 with titles. Confidence takes one
passage in ten to repeat a known claim. That share is a choice, not a fit: one in five called 2.4 % of
encyclopedia sentences on a claim's own subject high, so the 1.4 % measured there since is no blind figure.
BM25 ranks only: it grows with the length of a claim, and says little about likeness. Each list: BM25, cosine
of stems, cosine of character 4-grams.
"""

RANK_WEIGHTS = (2.453, 6.656, 16.77)
CONFIDENCE_WEIGHTS = (0.0, 8.348, 8.94)
CONFIDENCE_BIAS = -7.496
