"""Fit and judge the matching of claims on real posts: ``python -m tests.bench.edm_matching``.

Fits the figures of ``workers/families/edm/weights.py`` on the training posts alone and prints them, for words
alone and, where the extra is installed, with embeddings. Judges by five-fold cross-validation over posts, folds cut
by claim, and counts false alarms on sentences of an encyclopedia, on which nothing was fitted or chosen. The first
run embeds for some minutes; later ones find the vectors in ``.data``.
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

from workers.families.edm import minilm
from workers.families.edm.embedding import SAVE_EVERY, Store, embed, key_of
from workers.families.edm.matching import HIGH, MEDIUM, ClaimIndex, KnownClaim, passages_of
from workers.families.edm.minilm import Vectors
from workers.families.edm.words import content_words, normalised, tokens

DATA = Path(__file__).parents[3] / "shared" / "data"
KEPT = Path(".data")  # where vectors are kept between runs
PRIORS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)  # shares of passages that repeat a known claim, to choose from
MOST_HIGH = 0.0  # of training posts whose claim was taken away that may be called high
NEAR = 0.5  # cosine of stems from which two claims may be one
RANK_ONLY = (0, 3)  # BM25 and coverage: they grow with the length of claim or text and say little about likeness


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

    def __init__(self, index: ClaimIndex, *, fused: bool = False) -> None:
        rows = read("tweets-train.ndjson")
        self.texts = [row["text"] for row in rows]
        place = {one.id: at for at, one in enumerate(index.claims)}
        self.gold = [[place[name] for name in row["claim_ids"]] for row in rows]
        same = [normalised(one.claim) for one in index.claims]  # the file has claims that differ in their quotes only
        found = list(index.features(self.texts, embedded(self.texts) if fused else None))
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


def fit_confidence(posts: Posts, ranks: Any, chosen: Any, prior: float) -> tuple[Any, float]:
    """Fit how likely the first candidate is right, also on posts whose own claim is taken away."""
    positive, labels = _first(posts, ranks, chosen)
    negative, _ = _first(posts, bereft(posts, ranks), chosen)
    labels = np.concatenate([labels, np.zeros(len(negative), bool)])
    weights = np.concatenate([np.full(len(positive), prior), np.full(len(negative), 1 - prior)])
    both = np.concatenate([positive, negative])
    spread = both.std(axis=0)
    kept = [at for at in range(both.shape[1]) if at not in RANK_ONLY]
    model = LogisticRegression(max_iter=1000).fit((both / spread)[:, kept], labels, sample_weight=weights)
    slopes = np.zeros(both.shape[1])
    slopes[kept] = model.coef_[0] / spread[kept]
    return slopes, float(model.intercept_[0])


def bereft(posts: Posts, ranks: Any) -> Any:
    """Return the ranks with the posts' own claims, and what may be one with them, taken away."""
    return np.where(posts.near | posts.right, -np.inf, ranks)


def _first(posts: Posts, ranks: Any, chosen: Any) -> tuple[Any, Any]:
    each, first = np.arange(len(ranks)), ranks.argmax(axis=1)
    return posts.values[each, first][chosen], posts.right[each, first][chosen]


def cross_validate(posts: Posts, prior: float = 0.1) -> tuple[Any, Any]:
    """Return by what candidates are ordered, and how likely each is meant, each fitted on other posts."""
    ranks, scores = np.zeros(posts.right.shape), np.zeros(posts.right.shape)
    for train, test in GroupKFold(5).split(posts.values, groups=posts.groups):
        fitted = posts.values @ fit_ranking(posts.values[train], posts.right[train])
        ranks[test] = fitted[test]
        slopes, bias = fit_confidence(posts, fitted, train, prior)
        scores[test] = 1 / (1 + np.exp(-(posts.values[test] @ slopes + bias)))
    return ranks, scores


def choose_prior(posts: Posts) -> float:
    """Return the highest prior under which no post without its claim is called high, cross-validated.

    Only the training posts decide; text that has no match is kept for judging.
    """
    for prior in PRIORS:
        ranks, scores = cross_validate(posts, prior)
        if _wrongly_high(posts, ranks, scores) <= MOST_HIGH:
            return prior
    return PRIORS[-1]


def _wrongly_high(posts: Posts, ranks: Any, scores: Any) -> float:
    return float((scores[np.arange(len(ranks)), bereft(posts, ranks).argmax(axis=1)] >= HIGH).mean())


def judge(posts: Posts) -> None:
    """Print cross-validated figures, then the weights fitted on all posts."""
    prior = choose_prior(posts)
    ranks, scores = cross_validate(posts, prior)
    first, each = ranks.argmax(axis=1), np.arange(len(ranks))
    score, right = scores[each, first], posts.right[each, first]
    print(f"cross-validated MAP@5 {posts.mean_average_precision(ranks):.4f}; prior chosen {prior:g}")
    for name, low, high in (("high", HIGH, 2.0), ("medium", MEDIUM, HIGH)):
        chosen = (score >= low) & (score < high)
        print(f"  {name}: {chosen.mean():.1%} of the posts, {right[chosen].mean():.1%} of those right")
    print(f"  high without their claim: {_wrongly_high(posts, ranks, scores):.2%}")
    weights = fit_ranking(posts.values, posts.right)
    slopes, bias = fit_confidence(posts, posts.values @ weights, slice(None), prior)
    print(f"  rank {weights.round(3)} confidence {slopes.round(3)} bias {bias:.3f}")
    print(f"  committed weights: MAP@5 {posts.mean_average_precision(posts.committed):.4f}")


def embedded(texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts, kept from earlier runs where they were."""
    store = Store(KEPT)
    known = store.read()
    missing = list({key_of(text): text for text in texts if key_of(text) not in known}.values())
    for start in range(0, len(missing), SAVE_EVERY):
        turn = missing[start : start + SAVE_EVERY]
        known.update(zip(map(key_of, turn), embed(turn), strict=True))
        store.write(known)
    return np.array([known[key_of(text)] for text in texts])


def index_of(claims: Sequence[KnownClaim], *, fused: bool) -> ClaimIndex:
    """Build the index of one of the two matchers."""
    return ClaimIndex(claims, embedded(passages_of(claims)) if fused else None)


def false_alarms(index: ClaimIndex, sentences: Sequence[str], *, fused: bool = False) -> tuple[float, float]:
    """Return the shares of sentences called high and medium."""
    found = index.search(sentences, embedded(sentences) if fused else None, limit=1)
    best = np.array([one[0].score if one else 0.0 for one in found])
    return float((best >= HIGH).mean()), float(((best >= MEDIUM) & (best < HIGH)).mean())


def near_misses(*, fused: bool = False) -> tuple[ClaimIndex, list[str]]:
    """Return claims on one subject, and sentences that were looked up for them and judged not to bear on them."""
    rows = read("climate-claims.ndjson")
    sentences = [one["text"] for row in rows for one in row["evidence"] if one["label"] == "unverifiable"]
    claims = [KnownClaim(id=row["id"], claim=row["claim"]) for row in rows]
    return index_of(claims, fused=fused), list(dict.fromkeys(sentences))


def encyclopedia() -> list[str]:
    """Return the sentences of the encyclopedia, without doubles."""
    return list(dict.fromkeys(one["text"] for row in read("climate-claims.ndjson") for one in row["evidence"]))


def main() -> None:
    """Judge both matchers, without and with titles."""
    sentences = encyclopedia()
    for fused in (False, True) if minilm.is_installed() else (False,):
        print("\n=== " + ("words and embeddings" if fused else "words alone"))
        high, medium = false_alarms(*near_misses(fused=fused), fused=fused)
        print(f"sentences on the subject of the claims, but beside them: {high:.2%} high, {medium:.2%} medium")
        for titles in (False, True):
            index = index_of(known_claims(titles=titles), fused=fused)
            print(f"\n{'with' if titles else 'without'} titles:")
            judge(Posts(index, fused=fused))
            began = time.perf_counter()
            high, medium = false_alarms(index, sentences, fused=fused)
            print(f"  {len(sentences)} sentences without a match: {high:.2%} high, {medium:.2%} medium")
            print(f"  {1000 * (time.perf_counter() - began) / len(sentences):.2f} ms a sentence, vectors given")


if __name__ == "__main__":
    main()
