"""Lexical scores of a text: how varied, how complex and how dense its words are. Pure.

They measure the language of an interaction, not the worth of what it says. English markers only; other
languages score on words and sentences alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import fmean, pvariance

LONG_WORD = 8  # letters

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?…]+(?=\s|$)|[。！？]+|\n{2,}")

# Words that tie one clause to another: subordinators and the adverbs that argue.
_MARKERS = frozenset(
    {
        "although", "because", "consequently", "despite", "furthermore", "hence", "however", "if", "instead",
        "meanwhile", "moreover", "nevertheless", "nonetheless", "otherwise", "since", "so", "that", "therefore",
        "though", "thus", "unless", "until", "when", "whereas", "whether", "which", "while", "who", "whom", "whose",
        "yet",
    }
)  # fmt: skip


class TextLevel(StrEnum):
    """The overall score in a word."""

    HIGH = "HIGH"
    """At least .75."""
    MEDIUM = "MEDIUM"
    """At least .5."""
    LOW = "LOW"
    """At least .25."""
    CRITICAL = "CRITICAL"
    """Below .25."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScores:
    """The scores of one text, each 0–1; all 0, and no level, when it has no words."""

    diversity: float  # how many different words there are for the length
    complexity: float  # how long, varied and connected the sentences are
    density: float  # share of words of at least eight letters
    overall: float  # the lexical ARI: .4 diversity + .4 complexity + .2 density
    level: TextLevel | None


def score_text(text: str) -> TextScores:
    """Score a text of any length, in one pass over its words."""
    sentences = [words for words in map(_words, _SENTENCE_END.split(text)) if words]
    words = [word for sentence in sentences for word in sentence]
    if not words:
        return TextScores(diversity=0.0, complexity=0.0, density=0.0, overall=0.0, level=None)
    diversity, complexity, density = lexical_diversity(words), syntactic_complexity(sentences), long_word_share(words)
    overall = 0.4 * diversity + 0.4 * complexity + 0.2 * density
    return TextScores(
        diversity=diversity, complexity=complexity, density=density, overall=overall, level=text_level(overall)
    )


def lexical_diversity(words: Sequence[str]) -> float:
    """Return min(1, U/√N/10), U different words out of N (Guiraud 1954, whose root takes out the length)."""
    return min(1.0, len(set(words)) / sqrt(len(words)) / 10)


def syntactic_complexity(sentences: Sequence[Sequence[str]]) -> float:
    """Return .4·min(1, var/50) + .4·min(1, (markers/sentences)/3) + .2·min(1, mean/25).

    ``var`` and ``mean`` are the population variance and the mean of the sentences' lengths in words.
    """
    lengths = [len(sentence) for sentence in sentences]
    markers = sum(word in _MARKERS for sentence in sentences for word in sentence)
    return (
        0.4 * min(1.0, pvariance(lengths) / 50)
        + 0.4 * min(1.0, markers / len(sentences) / 3)
        + 0.2 * min(1.0, fmean(lengths) / 25)
    )


def long_word_share(words: Sequence[str]) -> float:
    """Return the share of words of at least eight letters."""
    return sum(sum(map(str.isalpha, word)) >= LONG_WORD for word in words) / len(words)


def text_level(overall: float) -> TextLevel:
    """Put an overall score into a word."""
    if overall >= 0.75:
        return TextLevel.HIGH
    if overall >= 0.5:
        return TextLevel.MEDIUM
    return TextLevel.LOW if overall >= 0.25 else TextLevel.CRITICAL


def _words(sentence: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(sentence)]
