"""Which fact-checked claims a passage repeats, and how sure that is. Pure; meant for a thread.

Two steps. BM25 over word stems picks the candidates of a passage, and the likeness of sentence embeddings some
more where there are any; BM25, TF-IDF cosine of stems, TF-IDF cosine of character 4-grams and, with embeddings, how
much of the passage a claim covers and that likeness then rank them, and say how likely the candidate is meant, by the
weights in :mod:`workers.families.edm.weights`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from workers.families.edm.weights import FUSED, LEXICAL, Weights
from workers.families.edm.words import content_words, spoken, tokens

HIGH, MEDIUM = 0.8, 0.5
CANDIDATES = 60  # by BM25
LIKE = 40  # more, by embeddings
BATCH = 64  # passages at once: each step then keeps the interpreter for a few milliseconds only

_K1, _B = 0.9, 0.6  # saturation and length of BM25; both flat around these on the training posts
_MIN_SHARED = 2  # words: one alone says nothing, however rare

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownClaim:
    """A claim to be found again; a title says it in other words."""

    id: str
    claim: str
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A known claim that a passage may repeat."""

    at: int  # its place among the claims that the index was built from
    score: float  # how likely it is meant, 0–1


class ClaimIndex:
    """Known claims, ready to be searched. 10,000 claims take a few seconds and about 100 MB.

    Claims are put into the order of their texts first, so that of equal ones the same is always preferred.
    A claim with a title has two rows, with it and without; the better one counts.
    """

    def __init__(self, claims: Sequence[KnownClaim], vectors: Vectors | None = None) -> None:
        """Build the index; ``vectors`` are the embeddings of ``passages_of(claims)``, in that order."""
        order = sorted(range(len(claims)), key=lambda at: (claims[at].claim, claims[at].id))
        self.claims = [claims[at] for at in order]
        rows = [(at, text) for at, one in enumerate(self.claims) for text in _texts(one)]
        self._owners = np.array([at for at, _ in rows], dtype=np.intp)
        self._first = np.searchsorted(self._owners, np.arange(len(self.claims)))
        self._vectors = None if vectors is None else _reordered(vectors, claims, order)
        given = [tokens(spoken(text)) for _, text in rows]
        self._words = _Words(given) if any(map(content_words, given)) else None
        self._letters = TfidfVectorizer(
            analyzer="char_wb", preprocessor=" ".join, ngram_range=(4, 4), sublinear_tf=True, dtype=np.float32
        )
        self._grams = self._letters.fit_transform(given) if self._words else None

    def search(self, texts: Sequence[str], vectors: Vectors | None = None, *, limit: int = 5) -> list[list[Match]]:
        """Return for each text up to ``limit`` claims it may repeat, the best first.

        ``vectors`` are the texts' embeddings, if the index was built with those of its claims. Without them only
        claims that share a word are found.
        """
        return [found for features in self.features(texts, vectors) for found in self._ranked(features, limit)]

    def features(self, texts: Sequence[str], vectors: Vectors | None = None) -> Iterator["Candidates"]:
        """Yield the candidates of the texts with what is measured on them, a batch at a time."""
        for start in range(0, len(texts) if self._words else 0, BATCH):
            given = [tokens(spoken(text)) for text in texts[start : start + BATCH]]
            yield self._candidates(given, None if vectors is None else vectors[start : start + BATCH])
        if not self._words and texts:
            yield Candidates.none(len(texts))

    def _candidates(self, given: list[list[str]], vectors: Vectors | None) -> "Candidates":
        assert self._words is not None  # noqa: S101  # features has looked
        asked = self._words.ask(given)
        rows = _best(asked.bm25, CANDIDATES)
        likeness: Floats | None = None
        if self._vectors is not None and vectors is not None:
            alike = vectors @ self._vectors.T
            left = alike.copy()
            np.put_along_axis(left, rows, -np.inf, axis=1)
            rows = np.concatenate([rows, _best(left, min(LIKE, left.shape[1] - rows.shape[1]))], axis=1)
            by_claim = np.maximum.reduceat(alike, self._first, axis=1)
            likeness = np.take_along_axis(by_claim, self._owners[rows], axis=1).astype(np.float64)
        compared = self._words.compare(asked, rows)
        letters = _pairwise(self._letters.transform(given), self._grams, rows)
        measured = [compared.bm25, compared.cosine, letters]
        if likeness is not None:
            measured += [compared.coverage, likeness]
        return Candidates(owners=self._owners[rows], values=np.stack(measured, axis=2), shared=compared.shared)

    def _ranked(self, found: "Candidates", limit: int) -> Iterator[list[Match]]:
        ranks, scores = found.ranks(), found.scores()
        for owners, order, score in zip(found.owners, ranks, scores, strict=True):
            best: dict[int, float] = {}
            for place in np.lexsort((owners, -order)):
                if order[place] == -np.inf or (len(best) == limit and int(owners[place]) not in best):
                    continue
                owner = int(owners[place])
                best[owner] = max(best.get(owner, 0.0), round(float(score[place]), 4))
            yield [Match(owner, value) for owner, value in best.items()]


def passages_of(claims: Sequence[KnownClaim]) -> list[str]:
    """Return what is to be embedded of claims: of each its claim, and its title where it has one."""
    return [text for one in claims for text in ([one.claim, one.title] if one.title else [one.claim])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The candidates of n texts, k each. Figures: BM25, cosine, letters and, with embeddings, coverage, likeness."""

    owners: Places  # (n, k), places of claims
    values: Floats  # (n, k, 3 or 5)
    shared: Floats  # (n, k), how many stems text and claim share; 0 where there was no further candidate

    @classmethod
    def none(cls, count: int) -> "Candidates":
        """Return that there are no candidates for ``count`` texts."""
        values = np.empty((count, 0, len(LEXICAL.rank)))
        return cls(owners=np.empty((count, 0), np.intp), values=values, shared=np.empty((count, 0)))

    @property
    def is_fused(self) -> bool:
        """Whether the likeness of embeddings is among the figures."""
        return bool(self.values.shape[2] > len(LEXICAL.rank))

    @property
    def weights(self) -> Weights:
        """What was fitted on figures of this kind."""
        return FUSED if self.is_fused else LEXICAL

    def ranks(self) -> Floats:
        """Return by what they are ordered, (n, k), higher first; −∞ for what is no candidate."""
        ranks: Floats = (self.values @ np.array(self.weights.rank)).round(9)
        return ranks if self.is_fused else np.where(self.shared > 0, ranks, -np.inf)

    def scores(self) -> Floats:
        """Return how likely each is meant, (n, k). With words alone, a single shared one never makes a likely one."""
        logits = self.values @ np.array(self.weights.confidence) + self.weights.bias
        scores: Floats = 1 / (1 + np.exp(-logits))
        if self.is_fused:
            return scores
        return np.where(self.shared >= _MIN_SHARED, scores, np.minimum(scores, MEDIUM - 0.01))


class _Words:
    """The stems of all rows: BM25 weights and TF-IDF weights.

    Weights of stems are divided by that of the rarest, so that figures mean the same in a small collection.
    """

    def __init__(self, given: list[list[str]]) -> None:
        self._counter = CountVectorizer(analyzer=content_words, dtype=np.float32)
        counts: Any = self._counter.fit_transform(given).tocsr()
        total = counts.shape[0]
        frequencies = np.bincount(counts.indices, minlength=counts.shape[1])
        self._idf = ((np.log((1 + total) / (1 + frequencies)) + 1) / (np.log(1 + total) + 1)).astype(np.float32)
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        damped = counts.data + _K1 * (1 - _B + _B * np.repeat(lengths, np.diff(counts.indptr)) / lengths.mean())
        weights = self._idf[counts.indices]
        self._bm25 = _like(counts, weights * counts.data * (_K1 + 1) / damped).T.tocsr()
        self._weights = _like(counts, weights)
        self._length = np.maximum(_norms(self._weights), 1e-6)

    def ask(self, given: list[list[str]]) -> "_Asked":
        """Return the stems of some texts, and BM25 of each with every row."""
        stems = [content_words(one) for one in given]
        found = self._counter.transform(given).tocsr()
        ones = _like(found, np.ones_like(found.data))
        weighted = _like(found, self._idf[found.indices])
        unknown = np.array([len(set(one)) for one in stems]) - np.diff(found.indptr)  # as rare as the rarest
        length = np.sqrt(_norms(weighted) ** 2 + unknown)
        total = np.asarray(weighted.sum(axis=1)).ravel() + unknown
        return _Asked(ones=ones, weighted=weighted, length=length, total=total, bm25=(ones @ self._bm25).toarray())

    def compare(self, asked: "_Asked", rows: Places) -> "_Compared":
        """Return what words say of each text with each of its rows."""
        lengths = self._length[rows] * np.maximum(asked.length, 1e-6)[:, None]
        has = _like(self._weights, np.ones_like(self._weights.data))
        return _Compared(
            bm25=np.take_along_axis(asked.bm25, rows, axis=1),
            cosine=_pairwise(asked.weighted, self._weights, rows) / lengths,
            coverage=_pairwise(asked.weighted, has, rows) / np.maximum(asked.total, 1e-6)[:, None],
            shared=_pairwise(asked.ones, has, rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Some texts as stems."""

    ones: Any
    weighted: Any
    length: Floats
    total: Floats  # of the weights, of stems that no row has too
    bm25: Floats  # (texts, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Figures of texts with their rows, (n, k) each."""

    bm25: Floats
    cosine: Floats
    coverage: Floats  # which share of the text's stems, by weight, the row has
    shared: Floats  # how many stems both have


def _texts(one: KnownClaim) -> list[str]:
    return [one.claim, f"{one.claim} {one.title}"] if one.title else [one.claim]


def _like(matrix: Any, values: Any) -> Any:
    """Return a sparse matrix with other values in the same places."""
    return csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def _norms(matrix: Any) -> Floats:
    norms: Floats = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return norms


def _best(values: Any, count: int) -> Places:
    """Return the places of the ``count`` highest of each row, in rising order."""
    count = min(count, values.shape[1])
    return np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)


def _pairwise(left: Any, right: Any, rows: Places) -> Floats:
    """Return the dot product of each row of ``left`` with each of its ``rows`` of ``right``."""
    repeated = np.repeat(np.arange(rows.shape[0]), rows.shape[1])
    products = left[repeated].multiply(right[rows.ravel()])
    return np.asarray(products.sum(axis=1), dtype=np.float64).reshape(rows.shape)


def _reordered(vectors: Vectors, claims: Sequence[KnownClaim], order: Sequence[int]) -> Vectors:
    """Return the vectors of claims and titles in the order of the rows."""
    counts = [len(_texts(one)) for one in claims]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
    places = [first[at] + row for at in order for row in range(counts[at])]
    return vectors[places]
