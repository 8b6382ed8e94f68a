"""The stored fact checks as a job uses them: an index over their claims, and what a match allows to say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import Discard
from app.jobs.edm import FactCheckStatus, Matcher
from app.records.fact_checks import FactCheck, read_fact_checks
from workers.context import Context
from workers.families.edm import minilm
from workers.families.edm.embedding import embed_all, embed_known
from workers.families.edm.matching import HIGH, ClaimIndex, KnownClaim, Match, passages_of
from workers.families.edm.minilm import Vectors
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

    def __init__(self, checks: Sequence[FactCheck], vectors: Vectors | None = None) -> None:
        self._by_id = {check.id: check for check in checks}
        self._index = ClaimIndex(claims_of(checks), vectors)
        self.matcher = Matcher.LEXICAL if vectors is None else Matcher.EMBEDDINGS

    def __len__(self) -> int:
        return len(self._by_id)

    async def embed(self, ctx: Context, texts: Sequence[str]) -> Vectors | None:
        """Return what :meth:`find` and :meth:`rank` need beside these texts; None where words are enough."""
        if self.matcher is Matcher.LEXICAL or not len(self):
            return None
        return await embed_all(ctx, texts)

    def find(self, texts: Sequence[str], vectors: Vectors | None = None) -> list[Repeated | None]:
        """Return the most likely fact check for each text where that is likely (≥ .8), else None."""
        found = self._index.search(texts, vectors, limit=1) if len(self) else [[] for _ in texts]
        return [
            self.judge(text, matches[0]) if matches and matches[0].score >= HIGH else None
            for text, matches in zip(texts, found, strict=True)
        ]

    def rank(self, texts: Sequence[str], vectors: Vectors | None = None, *, limit: int = 5) -> list[list[Repeated]]:
        """Return for each text the most likely fact checks, the best first."""
        found = self._index.search(texts, vectors, limit=limit) if len(self) else [[] for _ in texts]
        return [[self.judge(text, match) for match in matches] for text, matches in zip(texts, found, strict=True)]

    def judge(self, text: str, match: Match) -> Repeated:
        """Say what a match of a text allows to say."""
        check = self._by_id[self._index.claims[match.at].id]
        return Repeated(check=check, score=match.score, denies=_denies(text) != _denies(check.claim))


async def load_checks(ctx: Context, *, percent: float) -> Checks:
    """Read the stored fact checks and index them beside the event loop, up to this share of the job's progress.

    A few seconds for 10,000 by words; the first time with embeddings some minutes, later not a second more.
    """
    wants_vectors = _wants_vectors(ctx)
    checks = [check async for batch in read_fact_checks(ctx.records.database) for check in batch]
    vectors = None
    if wants_vectors:
        vectors = await embed_known(ctx, passages_of(claims_of(checks)), percent=(0.0, percent))
    index = await ctx.run_thread(Checks, checks, vectors)
    await ctx.progress(percent, f"{len(index)} fact checks indexed ({index.matcher})", stage="index")
    return index


def claims_of(checks: Sequence[FactCheck]) -> list[KnownClaim]:
    """Return what of fact checks can be found again."""
    return [KnownClaim(id=one.id, claim=one.claim, title=one.title) for one in checks]


def _wants_vectors(ctx: Context) -> bool:
    wanted = ctx.installation.settings.edm_matcher
    if wanted == "lexical":
        return False
    is_installed = minilm.is_installed()
    if wanted == "embeddings" and not is_installed:
        raise Discard(
            "EDM_MATCHER is embeddings, but the extra “embeddings” is not installed; install it, or use auto."
        )
    return is_installed


def _denies(text: str) -> bool:
    return is_negated(tokens(text)) or _DENIES.search(text) is not None
