"""ClaimReview (https://schema.org/ClaimReview) as publishers write it, as fact checks."""

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.errors import InvalidInput
from app.jobs.edm import FactCheckStatus
from app.records.fact_checks import FACT_CHECKS, FactCheck
from app.records.ingest import parse_records, read_records

# The members of Google's own example of a ClaimReview, in the form that publishers embed in their pages.
REVIEW: dict[str, Any] = {
    "@context": "https://schema.org",
    "@type": "ClaimReview",
    "url": "https://example.com/news/science/worldisflat.html",
    "claimReviewed": "The world is flat",
    "datePublished": "2014-07-22",
    "itemReviewed": {
        "@type": "Claim",
        "author": {"@type": "Organization", "name": "Square World Society"},
        "datePublished": "2014-06-20",
        "appearance": {"@type": "OpinionNewsArticle", "url": "https://example.net/news/a122121"},
    },
    "author": {"@type": "Organization", "name": "Example.com science watch"},
    "reviewRating": {
        "@type": "Rating",
        "ratingValue": 1,
        "bestRating": 5,
        "worstRating": 1,
        "alternateName": "False",
    },
}
FALSE, TRUE, DISPUTED = FactCheckStatus.FALSE, FactCheckStatus.VERIFIED, FactCheckStatus.DISPUTED


def review(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (REVIEW | changes).items() if value is not None}


def parse(document: object, content_type: str = "application/ld+json") -> list[FactCheck]:
    return parse_records(FACT_CHECKS, json.dumps(document).encode(), content_type=content_type)


def test_a_review_is_read_with_every_member_that_has_a_place() -> None:
    (check,) = parse(REVIEW)

    assert check.claim == "The world is flat"
    assert (check.rating, check.verdict, check.publisher) == ("False", FALSE, "Example.com science watch")
    assert (check.url, check.date) == (REVIEW["url"], datetime(2014, 7, 22, tzinfo=UTC))


@pytest.mark.parametrize("content_type", ["application/ld+json", "application/json"])
def test_one_review_several_and_a_graph_are_taken(content_type: str) -> None:
    other = review(url="https://example.com/other", claimReviewed="The moon is cheese")
    page = {"@type": "WebPage", "@id": "#page", "name": "A page"}

    for document in (
        [REVIEW, other],
        {"@context": "https://schema.org", "@graph": [page, REVIEW, other]},
        [{"@graph": [REVIEW]}, {"@graph": [other, page]}],
        [[REVIEW, other]],
        {"@type": "DataFeed", "dataFeedElement": [{"@type": "DataFeedItem", "item": [REVIEW, other]}]},
    ):
        assert [check.claim for check in parse(document, content_type)] == ["The world is flat", "The moon is cheese"]


def test_what_a_graph_keeps_as_nodes_of_their_own_is_put_in_their_places() -> None:
    nodes = [
        {"@type": "Organization", "@id": "#watch", "name": "Node watch"},
        {"@type": "Rating", "@id": "#rating", "ratingValue": "5", "bestRating": "5", "worstRating": "1"},
        review(author={"@id": "#watch"}, reviewRating={"@id": "#rating"}),
    ]

    (check,) = parse({"@graph": nodes})

    assert (check.publisher, check.rating, check.verdict) == ("Node watch", None, TRUE)


@pytest.mark.parametrize(
    ("rating", "verdict"),
    [
        ({"ratingValue": 1, "bestRating": 5, "worstRating": 1}, FALSE),
        ({"ratingValue": "5", "bestRating": "5", "worstRating": "1"}, TRUE),
        ({"ratingValue": 3, "bestRating": 5, "worstRating": 1}, DISPUTED),
        ({"ratingValue": 3, "bestRating": 5, "worstRating": 1, "alternateName": "Pants on Fire!"}, FALSE),
        ({"ratingValue": 1, "alternateName": "Four Pinocchios"}, None),
        ({"ratingValue": -1, "bestRating": -1, "worstRating": -1}, None),
        ({"name": "Mostly false"}, DISPUTED),
        ({"alternateName": {"@value": "True", "@language": "en"}}, TRUE),
        ({}, None),
    ],
)
def test_the_verdict_is_what_words_say_and_else_the_end_of_the_scale(
    rating: Mapping[str, object], verdict: FactCheckStatus | None
) -> None:
    (check,) = parse(review(reviewRating=rating))

    assert check.verdict == verdict


def test_members_that_are_missing_are_looked_for_where_publishers_put_them() -> None:
    (check,) = parse(
        review(
            claimReviewed=None,
            itemReviewed=[{"@type": "Claim", "name": "The world is a disc"}],
            author=None,
            publisher={"name": "The publisher"},
            datePublished=None,
            dateModified="2015-01-01T10:00:00Z",
        )
    )

    assert (check.claim, check.publisher, check.date.year) == ("The world is a disc", "The publisher", 2015)


def test_the_same_review_is_the_same_fact_check_and_another_is_not() -> None:
    one, same, other = parse([REVIEW, REVIEW, review(claimReviewed="The moon is cheese")])

    assert one.id == same.id != other.id


def test_what_is_wrong_is_named_by_its_place_in_the_graph() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse({"@graph": [REVIEW, review(datePublished=None), review(claimReviewed=None, itemReviewed=None)]})

    assert [error.pointer for error in refused.value.errors] == ["/@graph/1/date", "/@graph/2/claim"]


def test_something_else_of_json_ld_is_no_fact_check() -> None:
    with pytest.raises(InvalidInput):
        parse({"@type": "Recipe", "name": "Soup"})


def test_nesting_without_end_is_refused_not_followed() -> None:
    document: object = REVIEW
    for _ in range(20):
        document = {"@graph": [document]}

    with pytest.raises(InvalidInput):
        parse(document)


def test_a_graph_may_stand_on_a_line_and_a_document_in_a_file(tmp_path: Path) -> None:
    line = json.dumps({"@graph": [REVIEW]}).encode()
    file = tmp_path / "fact-checks.jsonld.gz"
    file.write_bytes(gzip.compress(json.dumps({"@graph": [REVIEW]}, indent=2).encode()))

    (from_file,) = [record for chunk in read_records(FACT_CHECKS, file) for record in chunk.records]

    assert parse_records(FACT_CHECKS, line, content_type="application/x-ndjson") == [from_file]
