"""Fact checks: claims that somebody checked, in our own words or as schema.org ClaimReview."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

import sqlalchemy as sa
from pydantic import Field, model_validator

from app.database import Database
from app.jobs.edm import FactCheckStatus
from app.jobs.fields import Identifier, Moment
from app.records.record import Record, RecordType

# What publishers call the five; other words stay a rating, without a verdict.
_VERDICTS = {
    FactCheckStatus.VERIFIED: ("true", "correct", "correct attribution", "accurate", "supported", "supports"),
    FactCheckStatus.DISPUTED: (
        "mixture", "mixed", "half true", "half-true", "partly true", "partly false", "mostly true", "mostly false",
        "misleading", "miscaptioned", "missing context", "exaggerated", "outdated",
    ),
    FactCheckStatus.FALSE: (
        "incorrect", "fake", "pants on fire", "pants on fire!", "fabricated", "hoax", "misattributed", "debunked",
        "refuted", "refutes", "scam",
    ),
    FactCheckStatus.UNVERIFIABLE: ("unproven", "unverified", "unknown", "not enough info", "undetermined", "legend"),
}  # fmt: skip
_BY_NAME = {name: status for status, names in _VERDICTS.items() for name in (status.value, *names)}


class FactCheck(Record):
    """A claim, and what somebody found it to be worth. A schema.org ClaimReview is taken too."""

    id: Identifier
    """Its id."""
    claim: Annotated[str, Field(min_length=1, max_length=10_000)]
    """The claim, as it goes around."""
    title: Annotated[str, Field(max_length=2_000)] | None = None
    """The headline of the check, which often says the claim in other words."""
    rating: Annotated[str, Field(max_length=1_000)] | None = None
    """What the publisher calls it, in its own words."""
    verdict: FactCheckStatus | None = None
    """The same as one of five words; by default from the rating where that is a common one."""
    publisher: Annotated[str, Field(max_length=1_000)] | None = None
    """Who checked it."""
    url: Annotated[str, Field(max_length=4_000)] | None = None
    """Where the check stands."""
    date: Moment
    """When it was published."""

    @model_validator(mode="before")
    @classmethod
    def _speak_our_words(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        fields = _from_claim_review(given) if "claimReviewed" in given else dict(given)
        verdict, rating = fields.get("verdict"), fields.get("rating")
        if isinstance(verdict, str):
            fields["verdict"] = _BY_NAME.get(verdict.strip().casefold(), verdict)
        elif verdict is None and isinstance(rating, str):
            fields["verdict"] = _BY_NAME.get(rating.strip().casefold())
        return fields

    @property
    def status(self) -> FactCheckStatus:
        """The verdict; pending where none is known."""
        return self.verdict or FactCheckStatus.PENDING


FACT_CHECKS = RecordType(
    name="fact-checks",
    model=FactCheck,
    id_field="id",
    user_field=None,
    time_field="date",
    summary="Claims that were checked, with their ratings; ClaimReview is taken too.",
)


async def read_fact_checks(database: Database, *, batch: int = 500) -> AsyncIterator[list[FactCheck]]:
    """Yield every fact check in the order of the ids, ``batch`` at a time."""
    identity = FACT_CHECKS.table.c.id
    ordered = sa.select(FACT_CHECKS.table).order_by(identity).limit(batch)
    page = ordered
    while True:
        async with database.read() as connection:
            rows = (await connection.execute(page)).mappings().all()
        found = FACT_CHECKS.batch.validate_python([dict(row) for row in rows])
        if found:
            yield found
        if len(found) < batch:
            return
        page = ordered.where(identity > found[-1].id)


def _from_claim_review(review: Mapping[str, Any]) -> dict[str, Any]:
    """Read https://schema.org/ClaimReview; what has no place here is left out."""
    rating, author = _part(review, "reviewRating"), _part(review, "author")
    claim, url = review["claimReviewed"], review.get("url")
    name = next((given for given in (review.get("@id"), url) if isinstance(given, str)), None)
    return {
        "id": str(uuid5(NAMESPACE_URL, f"{name}\n{author.get('name')}\n{claim}")),
        "claim": claim,
        "title": review.get("headline", review.get("name")),
        "rating": rating.get("alternateName", rating.get("name")),
        "verdict": _on_scale(rating),
        "publisher": author.get("name"),
        "url": url,
        "date": review.get("datePublished"),
    }


def _part(review: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = review.get(name)
    part = part[0] if isinstance(part, list) and part else part
    return part if isinstance(part, Mapping) else {}


def _on_scale(rating: Mapping[str, Any]) -> FactCheckStatus | None:
    """Return the verdict of a number at an end of its scale, where the words say nothing we know.

    By the documentation of ClaimReview the worst is false and the best is true; what lies between is disputed.
    """
    words = rating.get("alternateName", rating.get("name"))
    if isinstance(words, str) and words.strip().casefold() in _BY_NAME:
        return None
    try:
        value, worst, best = (float(rating[name]) for name in ("ratingValue", "worstRating", "bestRating"))
    except (KeyError, TypeError, ValueError):
        return None
    if not worst < best or not worst <= value <= best:
        return None
    return {worst: FactCheckStatus.FALSE, best: FactCheckStatus.VERIFIED}.get(value, FactCheckStatus.DISPUTED)
