"""What one user has claimed so far, to find where a later claim contradicts it. Pure.

Conservative on purpose: two statements are compared only when they have the same content words, apart from
numbers and negations, in the same order. A paraphrase is missed; what is found differs in nothing else.
"""

import re
from dataclasses import dataclass

from workers.families.edm.words import NEGATIONS, content_words, is_negated, tokens

MIN_FRAME = 2  # content words; below that two sentences are the same by accident
TOLERANCE = 0.01  # numbers closer than this, as a share of the larger, are one number rounded
MAX_CLAIMS = 20_000  # remembered of one user

_AUXILIARIES = frozenset({"do", "does", "did"})  # they come and go with a negation
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A claim as it is remembered."""

    text: str
    interaction_id: str
    numbers: tuple[float, ...]
    negated: bool


class Memory:
    """The claims of one user, by their content words."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, ...], list[Stated]] = {}
        self._count = 0

    def find_contradicted(self, text: str) -> Stated | None:
        """Return the first earlier claim that this statement contradicts."""
        frame, now = _state(text, "")
        if len(frame) < MIN_FRAME:
            return None
        return next((before for before in self._claims.get(frame, ()) if _contradict(before, now)), None)

    def remember(self, text: str, interaction_id: str) -> None:
        """Keep a statement; one that says the same as an earlier one is not kept twice."""
        frame, stated = _state(text, interaction_id)
        known = self._claims.setdefault(frame, [])
        is_new = not any((one.numbers, one.negated) == (stated.numbers, stated.negated) for one in known)
        if len(frame) >= MIN_FRAME and is_new and self._count < MAX_CLAIMS:
            known.append(stated)
            self._count += 1


def _state(text: str, interaction_id: str) -> tuple[tuple[str, ...], Stated]:
    given = tokens(text)
    numbers = [token for token in given if _NUMBER.fullmatch(token)]
    rest = [token for token in given if token not in NEGATIONS | _AUXILIARIES and not _NUMBER.fullmatch(token)]
    stated = Stated(
        text=text, interaction_id=interaction_id, numbers=tuple(map(_value, numbers)), negated=is_negated(given)
    )
    return tuple(content_words(rest)), stated


def _contradict(before: Stated, now: Stated) -> bool:
    if _years(before) != _years(now) or len(before.numbers) != len(now.numbers):
        return False  # said of different times, or one says more than the other
    differ = any(_differ(one, other) for one, other in zip(before.numbers, now.numbers, strict=True))
    return differ if before.negated == now.negated else not differ


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > TOLERANCE * max(abs(one), abs(other))


def _years(stated: Stated) -> list[float]:
    return [number for number in stated.numbers if number.is_integer() and 1900 <= number < 2100]


def _value(token: str) -> float:
    """Read ``1,200`` as 1200 and ``1.5`` as 1.5; a comma that groups no thousands is a decimal one."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", token):
        return float(token.replace(",", ""))
    whole, _, fraction = token.replace(",", ".").partition(".")
    return float(f"{whole}.{fraction.replace('.', '')}")
