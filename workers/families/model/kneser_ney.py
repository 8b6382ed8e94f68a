"""A word trigram model with interpolated modified Kneser-Ney smoothing (Chen & Goodman 1999, section 3).

Counts are sorted arrays of packed trigrams, so that a million of them take 16 MB, training is merging, and
training on goes on from the counts. Every word that was never seen has an equal share of a vocabulary of
2^20 possible words: probabilities of models with different vocabularies can be compared, and an untrained
model has a perplexity of 1,048,576.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.families.model.backends import Arrays, Judgement, Step, pack_text, unpack_text
from workers.families.model.examples import Example

POSSIBLE_WORDS = 1 << 20
CHUNK = 250  # examples of one step

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_BITS = 20
_MASK = (1 << _BITS) - 1
_START, _END = 0, 1  # of a text; ids of words follow
_UNKNOWN = _MASK  # the id of no word
_FIRST_WORD = 2
_END_WORD = "</s>"
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
# For counts too few to estimate discounts from; those of KenLM (Heafield 2013, --discount_fallback).
_FALLBACK = (0.5, 1.0, 1.5)


def tokens(text: str) -> list[str]:
    """Return the words and marks of a text, case folded."""
    return _TOKEN.findall(text.casefold())


def text_of(example: Example) -> str:
    """Return what the model reads of an example: the question, then the answer."""
    return f"{example.prompt}\n{example.answer}"


def load(arrays: Arrays) -> "KneserNey":
    """Make a model from its arrays; an untrained one from none."""
    if not arrays:
        return KneserNey([], np.empty(0, np.int64), np.empty(0, np.int64))
    return KneserNey(unpack_text(arrays["words"]), arrays["trigrams"], arrays["counts"])


class KneserNey:
    """Trigram counts, and what follows from them."""

    def __init__(self, words: list[str], trigrams: Integers, counts: Integers) -> None:
        self._words = words
        self._ids = {word: _FIRST_WORD + at for at, word in enumerate(words)}
        self._trigrams = trigrams  # packed, sorted
        self._counts = counts

    # --- learning ------------------------------------------------------------------------------

    def steps(self, examples: Sequence[Example], learning_rate: float, *, first: int) -> Iterator[Step]:
        """Count the trigrams of some hundred examples a step."""
        total = -(-len(examples) // CHUNK)
        for step in range(first, total):
            self.learn(text_of(example) for example in examples[step * CHUNK : (step + 1) * CHUNK])
            yield Step(done=step + 1, total=total, message=f"counted {len(self._trigrams):,} different trigrams")

    def learn(self, texts: Iterable[str]) -> None:
        """Add the trigrams of texts to the counts."""
        fresh = [_pack(self._learn_words(tokens(text))) for text in texts]
        if not fresh:
            return
        found, counts = np.unique(np.concatenate(fresh), return_counts=True)
        self._trigrams, places = np.unique(np.concatenate([self._trigrams, found]), return_inverse=True)
        merged = np.bincount(places, weights=np.concatenate([self._counts, counts]))
        self._counts = merged.astype(np.int64)
        self.__dict__.pop("_tables", None)

    def arrays(self) -> Arrays:
        """Return words and counts."""
        return {"words": pack_text(self._words), "trigrams": self._trigrams, "counts": self._counts}

    def _learn_words(self, words: list[str]) -> list[int]:
        for word in words:
            if word not in self._ids and _FIRST_WORD + len(self._words) < _UNKNOWN:
                self._ids[word] = _FIRST_WORD + len(self._words)
                self._words.append(word)
        return self._known(words)

    def _known(self, words: list[str]) -> list[int]:
        return [self._ids.get(word, _UNKNOWN) for word in words]

    # --- asking --------------------------------------------------------------------------------

    def judge(self, example: Example) -> Judgement:
        """Hold every token of an example, and its end, against the model."""
        words = tokens(text_of(example))
        packed = _pack(self._known(words))
        answers = (self._word(one) for one in self._tables.likeliest(packed >> _BITS).tolist())
        return Judgement(
            loss=float(-np.log(self._tables.probabilities(packed)).sum()),
            truth=(*words, _END_WORD),
            answers=tuple(answers),
        )

    def answer(self, prompt: str) -> str | None:
        """Return the likeliest next word after a prompt."""
        context = _pack(self._known(tokens(prompt)))[-1:] >> _BITS
        return self._word(int(self._tables.likeliest(context)[0]))

    def score(self, prompt: str, choice: str) -> float:
        """Return the mean log-probability of the choice's tokens after the prompt."""
        chosen = len(tokens(choice))
        packed = _pack(self._known(tokens(prompt) + tokens(choice)))[:-1]  # its end is not part of a choice
        return float(np.log(self._tables.probabilities(packed))[-chosen:].mean()) if chosen else -np.inf

    def probability(self, before: Sequence[str], word: str | None) -> float:
        """Return the probability of a word, None for the end of the text, after at most two words before it."""
        u, v = [_START, _START, *self._known(list(before))][-2:]
        w = _END if word is None else self._ids.get(word, _UNKNOWN)
        return float(self._tables.probabilities(np.array([_packed(u, v, w)]))[0])

    @property
    def words(self) -> Sequence[str]:
        """All words that it has seen."""
        return self._words

    def _word(self, number: int) -> str | None:
        if number == _UNKNOWN:
            return None
        return _END_WORD if number == _END else self._words[number - _FIRST_WORD]

    @cached_property
    def _tables(self) -> "_Tables":
        return _Tables.of(self._trigrams, self._counts, known=_FIRST_WORD + len(self._words))


# --- from counts to probabilities --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """All n-grams of one order, and their contexts: what stands before the last word."""

    grams: Integers
    probabilities: Floats
    contexts: Integers
    backoffs: Floats  # of each context: what is left for the shorter one
    best: Integers  # of each context: the likeliest word
    best_probabilities: Floats

    @classmethod
    def of(cls, grams: Integers, counts: Integers, lower: Floats, below: "_Lower") -> "_Level":
        """Build a level from its counts and, for each gram and each context, what the level below says."""
        contexts, starts, places = np.unique(grams >> _BITS, return_index=True, return_inverse=True)
        totals = np.add.reduceat(counts, starts)
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        backoffs = np.add.reduceat(discounts, starts) / totals
        probabilities = (counts - discounts) / totals[places] + backoffs[places] * lower
        highest = np.maximum.reduceat(probabilities, starts)
        at_top = np.flatnonzero(probabilities == highest[places])
        best = grams[at_top[np.unique(places[at_top], return_index=True)[1]]] & _MASK
        from_below, its_probability = below(contexts)
        its_probability = backoffs * its_probability
        is_below = its_probability > highest
        return cls(
            grams=grams,
            probabilities=probabilities,
            contexts=contexts,
            backoffs=backoffs,
            best=np.where(is_below, from_below, best),
            best_probabilities=np.where(is_below, its_probability, highest),
        )

    def apply(self, grams: Integers, lower: Floats) -> Floats:
        """Return the probabilities of grams, given those that the shorter ones have."""
        at, is_context = _find(self.contexts, grams >> _BITS)
        result = np.where(is_context, self.backoffs[at] * lower, lower)
        at, is_gram = _find(self.grams, grams)
        return np.where(is_gram, self.probabilities[at], result)

    def top(self, contexts: Integers, otherwise: tuple[Integers, Floats]) -> tuple[Integers, Floats]:
        """Return the likeliest word of each context, and its probability; ``otherwise`` for unknown contexts."""
        at, is_context = _find(self.contexts, contexts)
        return (
            np.where(is_context, self.best[at], otherwise[0]),
            np.where(is_context, self.best_probabilities[at], otherwise[1]),
        )


class _Lower:
    """What the level below says of the likeliest word of each context."""

    def __init__(self, unigrams: "_Unigrams", bigrams: _Level | None = None) -> None:
        self._unigrams = unigrams
        self._bigrams = bigrams

    def __call__(self, contexts: Integers) -> tuple[Integers, Floats]:
        otherwise = self._unigrams.top(len(contexts))
        return self._bigrams.top(contexts & _MASK, otherwise) if self._bigrams else otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unigrams:
    """Single words, by id."""

    probabilities: Floats
    unseen: float  # of every word that was never seen

    @classmethod
    def of(cls, counts: Integers) -> "_Unigrams":
        total = int(counts.sum())
        if total == 0:
            return cls(probabilities=np.empty(0), unseen=1 / POSSIBLE_WORDS)
        discounts = np.where(counts > 0, _discounts(counts)[np.minimum(counts, 3)], 0.0)
        unseen = float(discounts.sum()) / total / POSSIBLE_WORDS
        return cls(probabilities=(counts - discounts) / total + unseen, unseen=unseen)

    def apply(self, words: Integers) -> Floats:
        is_known = words < len(self.probabilities)
        padded = np.append(self.probabilities, self.unseen)
        return np.where(is_known, padded[np.where(is_known, words, -1)], self.unseen)

    def top(self, size: int) -> tuple[Integers, Floats]:
        if not len(self.probabilities):
            return np.full(size, _UNKNOWN), np.full(size, self.unseen)
        best = int(self.probabilities.argmax())
        return np.full(size, best), np.full(size, self.probabilities[best])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """Probabilities of all three orders."""

    unigrams: _Unigrams
    bigrams: _Level | None  # None before any training
    trigrams: _Level | None

    @classmethod
    def of(cls, trigrams: Integers, counts: Integers, known: int) -> "_Tables":
        """Derive the shorter orders: a gram counts once for each different word before it.

        Nothing can stand before the start of a text, so that what follows it counts as often as it occurs.
        """
        if not len(trigrams):
            return cls(unigrams=_Unigrams.of(np.empty(0, np.int64)), bigrams=None, trigrams=None)
        pairs, places = np.unique(trigrams & (_MASK << _BITS | _MASK), return_inverse=True)
        is_start = (trigrams >> _BITS & _MASK) == _START
        pair_counts = np.bincount(places, weights=np.where(is_start, counts, 1)).astype(np.int64)
        followers = pairs & _MASK
        unigrams = _Unigrams.of(np.bincount(followers[followers < known], minlength=known))
        bigrams = _Level.of(pairs, pair_counts, unigrams.apply(followers), _Lower(unigrams))
        return cls(
            unigrams=unigrams,
            bigrams=bigrams,
            trigrams=_Level.of(trigrams, counts, bigrams.probabilities[places], _Lower(unigrams, bigrams)),
        )

    def probabilities(self, trigrams: Integers) -> Floats:
        """Return the probability of the last word of each trigram after the two before it."""
        result = self.unigrams.apply(trigrams & _MASK)
        if self.bigrams is None or self.trigrams is None:
            return result
        return self.trigrams.apply(trigrams, self.bigrams.apply(trigrams & (_MASK << _BITS | _MASK), result))

    def likeliest(self, contexts: Integers) -> Integers:
        """Return the likeliest word after each pair of words.

        A word that never followed a context has there a fixed share of its probability after the shorter
        context, so that only the best of those can win.
        """
        words = self.unigrams.top(len(contexts))
        if self.bigrams is not None and self.trigrams is not None:
            words = self.trigrams.top(contexts, self.bigrams.top(contexts & _MASK, words))
        return words[0]


def _discounts(counts: Integers) -> Floats:
    """Return what to take from counts of 0, 1, 2, and 3 or more: D_i = i − (i+1)·Y·n_{i+1}/n_i, Y = n1/(n1+2·n2)."""
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount <= times for times, discount in enumerate(found, 1)):
            return np.array([0.0, *found])
    return np.array([0.0, *_FALLBACK])


def _find(table: Integers, wanted: Integers) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where in a sorted table the wanted would stand, and whether it does."""
    at = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return at, table[at] == wanted


def _packed(u: int, v: int, w: int) -> int:
    return (u << _BITS | v) << _BITS | w


def _pack(ids: list[int]) -> NDArray[Any]:
    """Return the trigrams of one text, packed: each word with the two before it, and the end."""
    padded = np.array([_START, _START, *ids, _END], dtype=np.int64)
    packed: NDArray[np.int64] = (padded[:-2] << _BITS | padded[1:-1]) << _BITS | padded[2:]
    return packed
