"""The words of a text as this family compares them. Pure.

Posts are cleaned of what belongs to their medium: links, the signature of an embedded post, the ``#`` and
``@`` of tags, whose joined words are taken apart.
"""

import re

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

NEGATIONS = frozenset({"not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot"})

_LINK = re.compile(r"(?:https?://|pic\.twitter\.com/|www\.)\S+")
_SIGNATURE = re.compile(r"[—–-]\s*([^—–]{1,80})\(@\w+\)\s+\w+ \d{1,2}, \d{4}\s*$")
_QUOTES = re.compile(r"[\"“”„«»‘’`]")
_TAG = re.compile(r"[@#](\w+)")
_JOINED = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TOKEN = re.compile(r"[^\W_]+(?:[.,]\d+)*")
_CONTRACTED = re.compile(r"(?<=[a-z])n['’]t\b|\bcan['’]t\b")
_POSSESSIVE = re.compile(r"['’]s\b")
_SUFFIXES = (("ies", "y"), ("sses", "ss"), ("ing", ""), ("edly", ""), ("ed", ""), ("ly", ""), ("es", "e"), ("s", ""))


def tokens(text: str) -> list[str]:
    """Return every word and number, in lower case, without what belongs to the medium of a post."""
    text = _SIGNATURE.sub(" ", _LINK.sub(" ", text))
    text = _TAG.sub(lambda tag: " " + _JOINED.sub(" ", tag[1]) + " ", text).lower()
    return _TOKEN.findall(_POSSESSIVE.sub("", _CONTRACTED.sub(" not", text)))


def spoken(text: str) -> str:
    """Return a text as one would read it out: without links, tags taken apart, signed by name, in plain quotes.

    Who is quoted belongs to what is claimed. Quotes do not: claims that differ in them alone are one.
    """
    text = _SIGNATURE.sub(r" \1", _LINK.sub(" ", text))
    text = _TAG.sub(lambda tag: " " + _JOINED.sub(" ", tag[1]) + " ", text)
    return " ".join(_QUOTES.sub("'", text).split())


def content_words(given: list[str]) -> list[str]:
    """Return the stems of those tokens that are no function words."""
    return [stem(token) for token in given if token not in ENGLISH_STOP_WORDS]


def normalised(text: str) -> str:
    """Return what is the same for two spellings of one claim: its tokens, joined."""
    return " ".join(tokens(text))


def is_negated(given: list[str]) -> bool:
    """Whether an odd number of the tokens negate."""
    return sum(token in NEGATIONS for token in given) % 2 == 1


def stem(word: str) -> str:
    """Take off the commonest English endings, lightly: ``studies`` and ``study`` meet, ``news`` stays."""
    if len(word) <= 4:
        return word
    for suffix, instead in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            return (word.removesuffix(suffix) + instead).rstrip("e")
    return word.rstrip("e")
