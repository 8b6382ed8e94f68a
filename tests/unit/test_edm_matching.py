"""Which claims a passage repeats: on small collections, and on real posts where those are at hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.bench import edm_matching
from workers.families.edm.matching import HIGH, MEDIUM, ClaimIndex, KnownClaim

COVERAGE = 3  # its place among the figures


def index_of(*claims: str) -> ClaimIndex:
    return ClaimIndex([KnownClaim(id=claim, claim=claim) for claim in claims])


def best(index: ClaimIndex, text: str) -> tuple[str | None, float]:
    (found,) = index.search([text], limit=1)
    return (index.claims[found[0].at].claim, found[0].score) if found else (None, 0.0)


SMALL = index_of("Vaccines cause autism in children.", "The earth is flat.", "5G towers spread the coronavirus.")


@pytest.mark.parametrize("text", ["The earth is flat.", "Vaccines cause autism in children!", "THE EARTH IS FLAT"])
def test_a_repeated_claim_is_found_with_high_confidence_even_among_few(text: str) -> None:
    assert best(SMALL, text)[1] >= HIGH


@pytest.mark.parametrize("text", ["Children like to play outside.", "The weather is nice.", "A flat tyre.", "", "?!"])
def test_text_without_a_match_stays_low_even_among_few(text: str) -> None:
    assert best(SMALL, text)[1] < MEDIUM


def test_other_words_of_the_same_claim_score_lower_than_its_own() -> None:
    claim, score = best(SMALL, "5G masts are what spreads coronavirus, they say.")

    assert claim == "5G towers spread the coronavirus."
    assert score < best(SMALL, claim)[1]


def test_an_empty_collection_matches_nothing() -> None:
    assert index_of().search(["The earth is flat."]) == [[]]
    assert index_of("Is it not so?").search(["The earth is flat."]) == [[]]


def test_of_claims_that_differ_in_their_quotes_the_same_one_is_preferred_whatever_their_order() -> None:
    claims = ["She said 'no tax' again.", 'She said "no tax" again.']

    assert best(index_of(*claims), claims[0]) == best(index_of(*reversed(claims)), claims[0])


def test_a_title_is_another_way_to_be_found() -> None:
    claim, title = "A picture shows a sea creature.", "Was a giant squid washed ashore in Punakaiki?"
    text = "A giant squid was washed ashore in Punakaiki"

    plain = ClaimIndex([KnownClaim(id="f", claim=claim)]).search([text])
    titled = ClaimIndex([KnownClaim(id="f", claim=claim, title=title)]).search([text])

    assert plain == [[]]
    assert titled[0][0].score > MEDIUM


def test_with_embeddings_it_counts_how_much_of_a_passage_a_claim_covers() -> None:
    claims = [KnownClaim(id="a", claim="Masks cause hypoxia."), KnownClaim(id="b", claim="Runners eat rice.")]
    index = ClaimIndex(claims, np.eye(2, dtype=np.float32))

    (found,) = index.features(["Masks cause hypoxia in runners"], np.eye(1, 2, dtype=np.float32))

    assert found.is_fused
    assert found.values[0, :, COVERAGE] == pytest.approx([3 / 4, 1 / 4])


def test_a_batch_answers_as_its_texts_alone_do() -> None:
    texts: Sequence[str] = ["The earth is flat.", "nothing of it", "5G towers spread the virus"] * 50

    assert SMALL.search(texts)[-3:] == [SMALL.search([text])[0] for text in texts[-3:]]


needs_posts = pytest.mark.skipif(
    not edm_matching.DATA.is_dir(), reason="the shared texts (verified-claims.ndjson …) are not beside this checkout"
)


@pytest.fixture(scope="module")
def real() -> ClaimIndex:
    return ClaimIndex(edm_matching.known_claims(titles=False))


@needs_posts
def test_posts_find_the_claims_they_repeat(real: ClaimIndex) -> None:
    posts = edm_matching.Posts(real)

    assert posts.mean_average_precision(edm_matching.cross_validate(posts)[0]) >= 0.80
    assert posts.mean_average_precision(posts.committed) >= 0.80


@needs_posts
def test_sentences_of_an_encyclopedia_are_hardly_ever_called_high(real: ClaimIndex) -> None:
    high, medium = edm_matching.false_alarms(real, edm_matching.encyclopedia()[::2])

    assert high <= 0.02
    assert medium <= 0.05


@needs_posts
def test_sentences_on_the_subject_of_a_claim_but_beside_it_are_hardly_ever_called_high() -> None:
    high, _ = edm_matching.false_alarms(*edm_matching.near_misses())

    assert high <= 0.02
