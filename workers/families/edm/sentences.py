"""Cutting a text into sentences and paragraphs whose places in it are exact. Pure; used by this family alone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MIN_WORDS = 3  # fewer make no claim that could be checked
MAX_PARAGRAPH_WORDS = 60  # about the length of a post, which is what the matching was fitted on

# A mark that ends a sentence, with the quotes and note numbers that still belong to it; or a line's end.
_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?:\[\d+\])*(?=\s|$)|[。！？]+|(?=\n)""")
_ABBREVIATION = re.compile(
    r"""(?:^|[\s("'“‘])(?:(?:[^\W\d_]\.)+[^\W\d_]?|dr|mr|mrs|ms|prof|sr|jr|st|vs|etc|al|cf|ca|approx|fig|no|vol|pp|p"""
    r"""|inc|ltd|co|corp|gov|sen|rep|gen|col|lt|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)$""",
    re.IGNORECASE,
)
_NEVER_ENDS = re.compile(r"(?:^|\W)(?:dr|mr|mrs|ms|prof|vs|al|cf|ca|approx|fig|no|vol|pp|sen|rep|gen|e\.g|i\.e)$", re.I)
_INITIAL = re.compile(r"(?:^|[.!?]\s+)[A-Z]$")  # of a name that begins the sentence, or the next one of a name
_LIST_NUMBER = re.compile(r"(?:\A|\n)[ \t]{0,8}\d{1,3}$")
_BULLET = re.compile(r"\s*(?:[-*•‣]|\d{1,3}[.)]|#{1,6}|>)?\s*")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Passage:
    """Some of a text: ``text == whole[start:end]``, without spaces around it."""

    start: int
    end: int
    text: str

    @property
    def is_statement(self) -> bool:
        """Whether it could claim something: three words or more, and no question."""
        return not self.text.rstrip("\"'”’»)]").endswith(("?", "？")) and len(_WORD.findall(self.text)) >= MIN_WORDS


def split_sentences(text: str) -> list[Passage]:
    """Return the sentences in their order, without the marks of a list before them.

    A line's end ends a sentence. Abbreviations, initials and decimals do not.
    """
    found: list[Passage] = []
    start = 0
    for end in _ends(text):
        if passage := _trimmed(text, start, end):
            found.append(passage)
        start = end
    return found


def split_passages(text: str) -> list[Passage]:
    """Return what may repeat a claim: statements, and paragraphs of several sentences up to the length of a post."""
    found: list[Passage] = []
    for paragraph in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text):
        whole = _trimmed(text, *paragraph.span())
        sentences = [
            Passage(whole.start + one.start, whole.start + one.end, one.text)
            for one in (split_sentences(whole.text) if whole else [])
            if whole
        ]
        found += [sentence for sentence in sentences if sentence.is_statement]
        if whole and len(sentences) > 1 and len(_WORD.findall(whole.text)) <= MAX_PARAGRAPH_WORDS:
            found.append(whole)
    return found


def _ends(text: str) -> Iterator[int]:
    for mark in _END.finditer(text):
        if mark.group() and mark.group()[0] == "." and _is_abbreviation(text, mark):
            continue
        yield mark.end()
    yield len(text)


def _is_abbreviation(text: str, mark: "re.Match[str]") -> bool:
    before = text[max(0, mark.start() - 24) : mark.start()]
    if mark.group() == "." and _INITIAL.search(before):
        return True
    if mark.group() != "." or not _ABBREVIATION.search(before):
        return _LIST_NUMBER.search(before) is not None
    follows = text[mark.end() :].lstrip(" ")[:1]
    return bool(_NEVER_ENDS.search(before)) or not (follows.isupper() and not re.search(r"(?:^|\s)\w$", before))


def _trimmed(text: str, start: int, end: int) -> Passage | None:
    bullet = _BULLET.match(text, start, end)
    start = bullet.end() if bullet else start
    trimmed = text[start:end].rstrip()
    return Passage(start, start + len(trimmed), trimmed) if _WORD.search(trimmed) else None
