"""The stored fact checks as a job uses them: an index over their claims, and what a match allows to say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.jobs.edm import FactCheckStatus
from app.records.fact_checks import FactCheck, read_fact_checks
from workers.context import Context
from workers.families.edm.matching import HIGH, ClaimIndex, KnownClaim, Match
from workers.families.edm.words import is_negated, tokens

_DENIES = re.compile(
    r"\b(?:false|fake|hoax|myth|debunk\w*|untrue|rumou?rs?|misinformation|disproved|disproven|refuted|conspiracy)\b",
    re.I,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A passage repeats the claim of a fact check, as far as words tell."""

    check: FactCheck
    score: float
    denies: bool  # whether one of the two visibly negates what the other says

    @property
    def is_rated_false(self) -> bool:
        """Whether the claim is rated false and the passage does not visibly deny it."""
        return self.score >= HIGH and self.check.status is FactCheckStatus.FALSE and not self.denies

    @property
    def verdict(self) -> str:
        """What follows, in one sentence. The words of a passage cannot tell whether it affirms or denies."""
        rating = self.check.rating or self.check.verdict
        rated = f"rated “{rating}”" if rating else "without a rating"
        stance = "stance unknown" + (", one of the two is negated" if self.denies else "")
        return f"Matches a claim {rated}, {stance}."


class Checks:
    """All stored fact checks, indexed once for a run."""

    def __init__(self, checks: Sequence[FactCheck]) -> None:
        self._by_id = {check.id: check for check in checks}
        self._index = ClaimIndex([KnownClaim(id=one.id, claim=one.claim, title=one.title) for one in checks])

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, texts: Sequence[str]) -> list[Repeated | None]:
        """Return the most likely fact check for each text where that is likely (≥ .8), else None."""
        found = self._index.search(texts, limit=1) if len(self) else [[] for _ in texts]
        return [
            self.judge(text, matches[0]) if matches and matches[0].score >= HIGH else None
            for text, matches in zip(texts, found, strict=True)
        ]

    def rank(self, texts: Sequence[str], *, limit: int = 5) -> list[list[Repeated]]:
        """Return for each text the most likely fact checks, the best first."""
        found = self._index.search(texts, limit=limit) if len(self) else [[] for _ in texts]
        return [[self.judge(text, match) for match in matches] for text, matches in zip(texts, found, strict=True)]

    def judge(self, text: str, match: Match) -> Repeated:
        """Say what a match of a text allows to say."""
        check = self._by_id[self._index.claims[match.at].id]
        return Repeated(check=check, score=match.score, denies=_denies(text) != _denies(check.claim))


async def load_checks(ctx: Context) -> Checks:
    """Read the stored fact checks and index them beside the event loop: a few seconds for 10,000."""
    checks = [check async for batch in read_fact_checks(ctx.records.database) for check in batch]
    return await ctx.run_thread(Checks, checks)


def _denies(text: str) -> bool:
    return is_negated(tokens(text)) or _DENIES.search(text) is not None
