"""Fact checks: claims that somebody checked, in our own words or as schema.org ClaimReview."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

import sqlalchemy as sa
from pydantic import Field, model_validator

from app.database import Database
from app.jobs.edm import FactCheckStatus
from app.jobs.fields import Identifier, Moment
from app.jobs.validation import pointer
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
        fields = _from_claim_review(given) if _is_review(given) else dict(given)
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


_HOLDERS = ("@graph", "dataFeedElement", "item")  # members of JSON-LD under which reviews stand
_MAX_DEPTH = 8
_NAMED = ("author", "publisher", "reviewRating", "itemReviewed")  # parts that a graph may keep as nodes of their own


def unfold_claim_reviews(document: object) -> Iterator[tuple[str, object]]:
    """Yield the records of a document, each with its pointer: itself, or the ClaimReviews of a list, graph or feed.

    Nodes of a graph that are no ClaimReview are left out; what a review names by ``@id`` is put into its place.
    """
    for where, part in _reviews_in(document, (), None):
        yield where, _from_claim_review(part) if isinstance(part, Mapping) and _is_review(part) else part


def _reviews_in(
    value: object, path: tuple[str | int, ...], nodes: Mapping[str, object] | None
) -> Iterator[tuple[str, object]]:
    """Yield what stands at ``path``; ``nodes`` are those of the graphs around it by ``@id``, None outside of any."""
    if len(path) > _MAX_DEPTH:
        yield pointer(path), value
    elif isinstance(value, list):
        for number, element in enumerate(value):
            yield from _reviews_in(element, (*path, number), nodes)
    elif isinstance(value, Mapping) and (holder := next((name for name in _HOLDERS if name in value), None)):
        inside = value[holder]
        known = {str(node["@id"]): node for node in _listed(inside) if isinstance(node, Mapping) and "@id" in node}
        yield from _reviews_in(inside, (*path, holder), {**(nodes or {}), **known})
    elif nodes is None or not isinstance(value, Mapping):
        yield pointer(path), value
    elif "claimReviewed" in value or "ClaimReview" in _types(value):
        yield pointer(path), {**value, **{name: _resolved(value[name], nodes) for name in _NAMED if name in value}}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _types(node: Mapping[str, Any]) -> list[str]:
    return [str(name).rpartition("/")[2].rpartition(":")[2] for name in _listed(node.get("@type"))]


def _resolved(value: object, nodes: Mapping[str, object]) -> object:
    """Return the node that ``{"@id": …}`` stands for; anything else as it is."""
    if isinstance(value, list):
        return [_resolved(element, nodes) for element in value]
    return nodes.get(str(value["@id"]), value) if isinstance(value, Mapping) and value.keys() == {"@id"} else value


FACT_CHECKS = RecordType(
    name="fact-checks",
    model=FactCheck,
    id_field="id",
    user_field=None,
    time_field="date",
    summary="Claims that were checked, with their ratings; ClaimReview is taken too.",
    unfold=unfold_claim_reviews,
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


def _is_review(given: Mapping[str, Any]) -> bool:
    return "claimReviewed" in given or "@type" in given


def _from_claim_review(review: Mapping[str, Any]) -> dict[str, Any]:
    """Read https://schema.org/ClaimReview; what has no place here is left out."""
    rating, author = _part(review, "reviewRating"), _part(review, "author")
    publisher = _words(author.get("name")) or _words(_part(review, "publisher").get("name"))
    claim = _words(review.get("claimReviewed")) or _words(_part(review, "itemReviewed").get("name"))
    url = _words(review.get("url"))
    name = next((given for given in (review.get("@id"), url) if isinstance(given, str)), None)
    return {
        "id": str(uuid5(NAMESPACE_URL, f"{name}\n{publisher}\n{claim}")),
        "claim": claim,
        "title": _words(review.get("headline", review.get("name"))),
        "rating": _rated(rating),
        "verdict": _on_scale(rating),
        "publisher": publisher,
        "url": url,
        "date": next((review[name] for name in _DATES if review.get(name) is not None), None),
    }


_DATES = ("datePublished", "dateModified", "dateCreated", "sdDatePublished")


def _part(review: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = review.get(name)
    part = part[0] if isinstance(part, list) and part else part
    return part if isinstance(part, Mapping) else {}


def _words(value: Any) -> Any:
    """Return the text of a member: the first of several, and of one with a language its value."""
    first = value[0] if isinstance(value, list) and value else value
    return first.get("@value") if isinstance(first, Mapping) else first


def _rated(rating: Mapping[str, Any]) -> Any:
    return _words(rating.get("alternateName", rating.get("name")))


def _on_scale(rating: Mapping[str, Any]) -> FactCheckStatus | None:
    """Return the verdict of a number at an end of its scale, where the words say nothing we know.

    By the documentation of ClaimReview the worst is false and the best is true; what lies between is disputed.
    """
    words = _rated(rating)
    if isinstance(words, str) and words.strip().casefold() in _BY_NAME:
        return None
    try:
        value, worst, best = (float(rating[name]) for name in ("ratingValue", "worstRating", "bestRating"))
    except (KeyError, TypeError, ValueError):
        return None
    if not worst < best or not worst <= value <= best:
        return None
    return {worst: FactCheckStatus.FALSE, best: FactCheckStatus.VERIFIED}.get(value, FactCheckStatus.DISPUTED)
