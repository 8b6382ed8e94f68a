"""The plain rules by which a sentence is a debt. Pure; English phrases."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from app.jobs.edm import DebtSeverity, DebtType

SEVERITIES = {
    DebtType.UNFALSIFIABLE: DebtSeverity.MEDIUM,
    DebtType.MISSING_CITATION: DebtSeverity.HIGH,
    DebtType.VAGUE_CLAIM: DebtSeverity.LOW,
    DebtType.STALE: DebtSeverity.MEDIUM,
    DebtType.CONTRADICTION: DebtSeverity.HIGH,
    DebtType.FACT_CHECK_MATCH: DebtSeverity.CRITICAL,
}
STALE_YEARS = 2  # a "current" figure of two years before is not current


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a sentence lacks, and why we say so."""

    debt_type: DebtType
    evidence: str


def _phrases(*phrases: str) -> "re.Pattern[str]":
    words = "|".join(phrase.replace(" ", r"\s+").replace("'", "['’]") for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


_UNFALSIFIABLE = _phrases(
    "everyone knows", "everybody knows", "it's obvious that", "it is obvious that", "clearly", "undeniably",
    "without a doubt", "no one can deny", "nobody can deny",
)  # fmt: skip
_LEANS_ON = _phrases(
    "studies (?:have )?(?:show|shown)", "research (?:indicates|shows|has shown)", "experts (?:say|agree)",
    "it has been proven", "it's been proven", "statistics show",
)  # fmt: skip
_VAGUE = _phrases("many people", "some say", "some people say", "it is believed", "it's believed", "generally speaking")
# Bounded, so that no text makes it slow.
_CITATION = re.compile(
    r"""\[\d+(?:\s*[,;–-]\s*\d+)*\]"""  # [3], [3, 4]
    r"""|\([^()]{0,200}[^\W\d_][^()]{0,200}\b(?:1[5-9]|20)\d\d[a-z]?\b[^()]{0,200}\)"""  # (see Name 2020, p. 3)
    r"""|\b[A-Z][\w'’-]{1,40}(?:\s+(?:et\s+al\.?|(?:and|&)\s+[A-Z][\w'’-]{1,40}))?"""  # Name et al.
    r"""\s+\((?:1[5-9]|20)\d\d[a-z]?\)"""  # (2020)
    r"""|(?<!\w)doi:\s*\S|https?://\S"""
)
_CURRENT = re.compile(
    r"""(?<!\w)(?:as\s+of|currently|at\s+present|presently|up\s+to\s+date|(?:the\s+)?(?:latest|most\s+recent))"""
    r"""(?!\w)""",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<![\w.,$€£])(?:19|20)\d\d(?![\w%]|[.,]\d)")


def find_faults(sentence: str, said_at: datetime) -> Iterator[Fault]:
    """Yield each kind of fault that a statement has, at most once a kind."""
    if found := _UNFALSIFIABLE.search(sentence):
        yield Fault(debt_type=DebtType.UNFALSIFIABLE, evidence=f"“{found[0]}” leaves nothing that could show it wrong.")
    if (found := _LEANS_ON.search(sentence)) and not has_citation(sentence):
        yield Fault(debt_type=DebtType.MISSING_CITATION, evidence=f"“{found[0]}”, and no source in the sentence.")
    if found := _VAGUE.search(sentence):
        yield Fault(debt_type=DebtType.VAGUE_CLAIM, evidence=f"“{found[0]}” names nobody and no number.")
    if (found := _CURRENT.search(sentence)) and _is_past(year := _latest_year(sentence), said_at):
        evidence = f"“{found[0]}” with the year {year}, said in {said_at.year}."
        yield Fault(debt_type=DebtType.STALE, evidence=evidence)


def has_citation(sentence: str) -> bool:
    """Whether a source stands in the sentence: ``[1]``, ``(Name, 2020)``, ``Name (2020)``, a DOI or a link."""
    return _CITATION.search(sentence) is not None


def _is_past(year: int | None, said_at: datetime) -> bool:
    return year is not None and year <= said_at.year - STALE_YEARS


def _latest_year(sentence: str) -> int | None:
    return max((int(found[0]) for found in _YEAR.finditer(sentence)), default=None)
