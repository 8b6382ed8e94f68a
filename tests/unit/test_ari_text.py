"""Lexical scores of texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.families.ari.text import (
    TextLevel,
    TextScores,
    lexical_diversity,
    long_word_share,
    score_text,
    syntactic_complexity,
    text_level,
)


def test_a_text_without_words_scores_nothing_and_has_no_level() -> None:
    for text in ("", " \n", "42 + 7 = 49!"):
        assert score_text(text) == TextScores(diversity=0, complexity=0, density=0, overall=0, level=None)


def test_a_text_scores_by_the_three_formulas() -> None:
    # Sentences of 4 and 6 words: mean 5, variance 1; markers: because, which; 10 words, 9 of them different.
    found = score_text("The experiment was short. It failed because the instruments, which…")

    assert found.diversity == pytest.approx(9 / 10**0.5 / 10)
    assert found.complexity == pytest.approx(0.4 * 1 / 50 + 0.4 * (2 / 2) / 3 + 0.2 * 5 / 25)
    assert found.density == pytest.approx(2 / 10)
    assert found.overall == pytest.approx(0.4 * found.diversity + 0.4 * found.complexity + 0.2 * found.density)
    assert found.level is TextLevel.CRITICAL


def test_a_word_said_twice_is_one_word_whatever_its_case() -> None:
    assert lexical_diversity(["word"] * 4) == pytest.approx(1 / 2 / 10)
    assert score_text("Word word WORD").diversity == score_text("word word word").diversity


def test_diversity_complexity_and_density_end_at_one() -> None:
    words = [f"{first}{second}nnnnnn" for first in "abcdefghijklmno" for second in "abcdefghijklmno"]

    assert lexical_diversity(words) == 1
    assert syntactic_complexity([["because"] * 100, ["because"]]) == 1
    assert long_word_share(words) == 1


def test_letters_make_a_long_word_and_apostrophes_do_not() -> None:
    assert long_word_share(["shouldn't"]) == 1
    assert long_word_share(["wouldn't"]) == 0


def test_a_decimal_point_does_not_end_a_sentence() -> None:
    assert (
        score_text("It rose by 3.5 points").complexity == score_text("It rose by a points".replace(" a", "")).complexity
    )


@pytest.mark.parametrize(
    ("overall", "level"),
    [(1, "HIGH"), (0.75, "HIGH"), (0.7499, "MEDIUM"), (0.5, "MEDIUM"), (0.4999, "LOW"), (0.25, "LOW"), (0, "CRITICAL")],
)
def test_the_levels_begin_at_three_quarters_a_half_and_a_quarter(overall: float, level: str) -> None:
    assert text_level(overall) == level


@given(st.text(max_size=500))
def test_every_score_of_every_text_lies_between_zero_and_one(text: str) -> None:
    found = score_text(text)

    assert all(0 <= score <= 1 for score in (found.diversity, found.complexity, found.density, found.overall))
    assert (found.level is None) == (found.diversity == 0)
