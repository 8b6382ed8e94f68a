"""Fit and judge the matching of claims on real posts: ``python -m tests.bench.edm_matching``.

Fits the figures of ``workers/families/edm/weights.py`` on the training posts alone and prints them. Judges by
five-fold cross-validation over posts, folds cut by claim, and counts false alarms on sentences of an
encyclopedia, on which no weight was fitted.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from workers.families.edm.matching import HIGH, MEDIUM, ClaimIndex, KnownClaim
from workers.families.edm.words import content_words, normalised, tokens

DATA = Path(__file__).parents[3] / "shared" / "data"
PRIOR = 0.1  # of passages that repeat a known claim; chosen, and with the sentences below in sight
NEAR = 0.5  # cosine of stems from which two claims may be one
USED = (1, 2)  # of BM25, cosine and letters; BM25 grows with the length of the claim and says little about likeness


def read(name: str) -> list[dict[str, Any]]:
    """Read one of the files."""
    return [orjson.loads(line) for line in (DATA / name).read_bytes().splitlines()]


def known_claims(*, titles: bool) -> list[KnownClaim]:
    """Return the verified claims."""
    return [
        KnownClaim(id=row["id"], claim=row["claim"], title=row["title"] if titles else None)
        for row in read("verified-claims.ndjson")
    ]


class Posts:
    """The training posts with the candidates of each, and which of those are right."""

    def __init__(self, index: ClaimIndex) -> None:
        rows = read("tweets-train.ndjson")
        self.texts = [row["text"] for row in rows]
        place = {one.id: at for at, one in enumerate(index.claims)}
        self.gold = [[place[name] for name in row["claim_ids"]] for row in rows]
        same = [normalised(one.claim) for one in index.claims]  # the file has claims that differ in their quotes only
        found = list(index.features(self.texts))
        self.owners = np.concatenate([one.owners for one in found])
        self.values = np.concatenate([one.values for one in found])
        self.committed = np.concatenate([one.ranks() for one in found])
        self.right = np.array(
            [
                [same[at] in {same[g] for g in gold} for at in row]
                for row, gold in zip(self.owners, self.gold, strict=True)
            ]
        )
        stems = [frozenset(content_words(tokens(one.claim))) for one in index.claims]
        self.near = np.array(
            [
                [any(_alike(stems[at], stems[g]) for g in gold) for at in row]
                for row, gold in zip(self.owners, self.gold, strict=True)
            ]
        )
        self.groups = np.array([gold[0] for gold in self.gold])

    def mean_average_precision(self, ranks: Any, depth: int = 5) -> float:
        """Return MAP@5 of candidates ordered by ``ranks``, each claim counted at its best row."""
        total = 0.0
        for gold, owners, rank in zip(self.gold, self.owners, ranks, strict=True):
            order = list(dict.fromkeys(int(owners[at]) for at in np.lexsort((owners, -rank.round(9)))))[:depth]
            hits = [at for at, owner in enumerate(order, 1) if owner in gold]
            total += sum(number / at for number, at in enumerate(hits, 1)) / min(len(gold), depth)
        return total / len(self.gold)


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    least: float = NEAR * (max(len(one), 1) * max(len(other), 1)) ** 0.5
    return len(one & other) > least


def fit_ranking(values: Any, right: Any) -> Any:
    """Fit the weights under which the right candidates win: a softmax over the candidates of each post."""
    known = right.any(axis=1)
    values, right = values[known], right[known]
    share = right / right.sum(axis=1, keepdims=True)
    spread = values.reshape(-1, values.shape[2]).std(axis=0)
    scaled = values / spread

    def loss(weights: Any) -> tuple[float, Any]:
        logits = scaled @ weights
        total = logsumexp(logits, axis=1)
        chances = np.exp(logits - total[:, None])
        gradient = np.einsum("ij,ijk->k", chances - share, scaled) / len(scaled) + 2e-3 * weights
        return float((total - (share * logits).sum(axis=1)).mean() + 1e-3 * weights @ weights), gradient

    return minimize(loss, np.zeros(values.shape[2]), jac=True, method="L-BFGS-B").x / spread


def fit_confidence(posts: Posts, ranks: Any, chosen: Any) -> tuple[Any, float]:
    """Fit how likely the first candidate is right, also on posts whose own claim is taken away."""
    first = ranks.argmax(axis=1)
    without = np.where(posts.near | posts.right, -np.inf, ranks).argmax(axis=1)
    each = np.arange(len(ranks))
    positive = posts.values[each, first][chosen][:, USED]
    negative = posts.values[each, without][chosen][:, USED]
    labels = np.concatenate([posts.right[each, first][chosen], np.zeros(len(negative), bool)])
    weights = np.concatenate([np.full(len(positive), PRIOR), np.full(len(negative), 1 - PRIOR)])
    both = np.concatenate([positive, negative])
    spread = both.std(axis=0)
    model = LogisticRegression(max_iter=1000).fit(both / spread, labels, sample_weight=weights)
    return model.coef_[0] / spread, float(model.intercept_[0])


def cross_validate(posts: Posts) -> tuple[Any, Any]:
    """Return by what candidates are ordered, and how likely the first is right, each fitted on other posts."""
    ranks, scores = np.zeros(posts.right.shape), np.zeros(posts.right.shape)
    for train, test in GroupKFold(5).split(posts.values, groups=posts.groups):
        fitted = posts.values @ fit_ranking(posts.values[train], posts.right[train])
        ranks[test] = fitted[test]
        slopes, bias = fit_confidence(posts, fitted, train)
        scores[test] = 1 / (1 + np.exp(-(posts.values[test][:, :, USED] @ slopes + bias)))
    return ranks, scores


def judge(posts: Posts) -> None:
    """Print cross-validated figures, then the weights fitted on all posts."""
    ranks, scores = cross_validate(posts)
    first, each = ranks.argmax(axis=1), np.arange(len(ranks))
    score, right = scores[each, first], posts.right[each, first]
    print(f"cross-validated MAP@5 {posts.mean_average_precision(ranks):.4f}")
    for name, low, high in (("high", HIGH, 2.0), ("medium", MEDIUM, HIGH)):
        chosen = (score >= low) & (score < high)
        print(f"  {name}: {chosen.mean():.1%} of the posts, {right[chosen].mean():.1%} of those right")
    weights = fit_ranking(posts.values, posts.right)
    slopes, bias = fit_confidence(posts, posts.values @ weights, slice(None))
    print(f"RANK_WEIGHTS {weights.round(3)} CONFIDENCE_WEIGHTS {slopes.round(3)} CONFIDENCE_BIAS {bias:.3f}")
    print(f"committed weights: MAP@5 {posts.mean_average_precision(posts.committed):.4f}")


def false_alarms(index: ClaimIndex, sentences: Sequence[str]) -> tuple[float, float]:
    """Return the shares of sentences called high and medium."""
    best = np.array([found[0].score if found else 0.0 for found in index.search(sentences, limit=1)])
    return float((best >= HIGH).mean()), float(((best >= MEDIUM) & (best < HIGH)).mean())


def near_misses() -> tuple[ClaimIndex, list[str]]:
    """Return claims on one subject, and sentences that were looked up for them and judged not to bear on them."""
    rows = read("climate-claims.ndjson")
    sentences = [one["text"] for row in rows for one in row["evidence"] if one["label"] == "unverifiable"]
    return ClaimIndex([KnownClaim(id=row["id"], claim=row["claim"]) for row in rows]), list(dict.fromkeys(sentences))


def encyclopedia() -> list[str]:
    """Return the sentences of the encyclopedia, without doubles."""
    return list(dict.fromkeys(one["text"] for row in read("climate-claims.ndjson") for one in row["evidence"]))


def main() -> None:
    """Judge without and with titles."""
    high, medium = false_alarms(*near_misses())
    print(f"sentences on the subject of the claims, but beside them: {high:.2%} high, {medium:.2%} medium")
    sentences = encyclopedia()
    for titles in (False, True):
        began = time.perf_counter()
        index = ClaimIndex(known_claims(titles=titles))
        print(f"\n{'with' if titles else 'without'} titles: built in {time.perf_counter() - began:.1f} s")
        judge(Posts(index))
        began = time.perf_counter()
        high, medium = false_alarms(index, sentences)
        print(f"{len(sentences)} sentences without a match: {high:.2%} high, {medium:.2%} medium")
        print(f"  {1000 * (time.perf_counter() - began) / len(sentences):.2f} ms a sentence")


if __name__ == "__main__":
    main()
