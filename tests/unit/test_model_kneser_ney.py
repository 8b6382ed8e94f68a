"""The trigram model: probabilities that sum to 1, known answers by hand, and training that can be continued."""

from collections.abc import Sequence
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.families.model.examples import Example
from workers.families.model.kneser_ney import POSSIBLE_WORDS, KneserNey, load, tokens

WORDS = st.sampled_from("abcdefg")
TEXTS = st.lists(st.lists(WORDS, max_size=12).map(" ".join), min_size=1, max_size=12)


def trained(*texts: str) -> KneserNey:
    model = load({})
    model.learn(texts)
    return model


def total(model: KneserNey, before: Sequence[str]) -> float:
    """Return the sum of the probabilities of all possible words: the known, the end, and all the others."""
    known = [*model.words, None]
    others = POSSIBLE_WORDS - len(known)
    return sum(model.probability(before, word) for word in known) + others * model.probability(before, "never-seen")


@given(TEXTS, st.lists(st.sampled_from("abcdefgxyz"), max_size=3))
def test_the_probabilities_of_all_possible_words_sum_to_one(texts: list[str], before: list[str]) -> None:
    assert total(trained(*texts), before) == pytest.approx(1)


@given(TEXTS, st.lists(st.sampled_from("abcdefgxyz"), max_size=3))
def test_the_likeliest_word_is_the_one_with_the_highest_probability(texts: list[str], before: list[str]) -> None:
    model = trained(*texts)

    answer = model.answer(" ".join(before))

    highest = max(model.probability(before, word) for word in [*model.words, None])
    assert answer is not None
    assert model.probability(before, None if answer == "</s>" else answer) == pytest.approx(highest)


def test_an_untrained_model_finds_all_possible_words_equally_likely() -> None:
    judgement = load({}).judge(Example(id="e", prompt="any", answer="words", label=None))

    assert exp(judgement.loss / len(judgement.truth)) == pytest.approx(POSSIBLE_WORDS)
    assert judgement.answers == (None, None, None)


def test_the_probability_of_a_corpus_of_one_text_is_the_one_by_hand() -> None:
    """Every count is 1, so every discount is ½: p = ½ + ½·(½ + ½·(½/3 + ½/N)) for each of a, b and the end."""
    unigram = 0.5 / 3 + 0.5 / POSSIBLE_WORDS
    by_hand = 0.5 + 0.5 * (0.5 + 0.5 * unigram)

    model = trained("a b")

    probabilities = [model.probability([], "a"), model.probability(["a"], "b"), model.probability(["a", "b"], None)]
    assert probabilities == pytest.approx([by_hand] * 3)
    judgement = model.judge(Example(id="e", prompt="a", answer="b", label=None))
    assert exp(judgement.loss / 3) == pytest.approx(1 / by_hand)


def test_the_perplexity_of_words_that_follow_each_other_by_chance_is_their_number() -> None:
    """Of k words that come equally often after everything, each next one has the probability 1/k."""
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(list("abcdefgh"), 500)) for _ in range(60)]
    model = trained(*texts[:-10])

    judged = [model.judge(Example(id="e", prompt=text, answer="", label=None)) for text in texts[-10:]]

    loss = sum(one.loss for one in judged) / sum(len(one.truth) for one in judged)
    assert exp(loss) == pytest.approx(8, rel=0.05)


def test_a_word_is_likelier_for_what_it_follows_than_for_how_often_it_comes() -> None:
    """ "francisco" comes often but only after "san": after a new word, others are likelier (Chen & Goodman 1999)."""
    model = trained(*["san francisco"] * 20, "red glass", "blue glass", "green glass")

    assert model.probability(["new"], "glass") > model.probability(["new"], "francisco")


def test_counting_in_parts_is_counting_at_once() -> None:
    texts = ["the cat sat", "the dog sat on the mat", "a cat and a dog"]
    parts = trained(texts[0])
    parts = load(parts.arrays())
    parts.learn(texts[1:])

    whole = trained(*texts)

    assert all(np.array_equal(parts.arrays()[name], array) for name, array in whole.arrays().items())


def test_more_training_lowers_the_perplexity_of_other_text_of_the_same_kind() -> None:
    draw = np.random.default_rng(5)
    subjects, verbs, things = ["the cat", "a dog", "my friend"], ["sees", "likes", "finds"], ["a tree", "the house"]
    texts = [" ".join(map(str, (draw.choice(subjects), draw.choice(verbs), draw.choice(things)))) for _ in range(80)]

    losses = []
    for count in (5, 20, 60):
        model = trained(*texts[:count])
        losses.append(sum(model.judge(Example(id="e", prompt=one, answer="", label=None)).loss for one in texts[60:]))

    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_a_choice_is_scored_by_the_mean_of_its_tokens() -> None:
    model = trained("we go home", "we go out")

    scored = model.score("we go", "home")

    assert scored == pytest.approx(log(model.probability(["we", "go"], "home")))
    assert model.score("we go", "home") > model.score("we go", "zebra")


def test_marks_are_tokens_and_case_does_not_matter() -> None:
    assert tokens("Don't stop, Ada!") == ["don't", "stop", ",", "ada", "!"]
