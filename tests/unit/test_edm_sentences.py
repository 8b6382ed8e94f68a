"""Sentences are cut where they end, and their places are exact."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.families.edm.sentences import split_passages, split_sentences


def sentences(text: str) -> list[str]:
    return [passage.text for passage in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there.", ["One is here.", "Two is there."]),
        ("Dr. Smith measured 3.5 percent. It rose.", ["Dr. Smith measured 3.5 percent.", "It rose."]),
        ("See e.g. the book. Then go.", ["See e.g. the book.", "Then go."]),
        ("The U.S. economy grew. Good.", ["The U.S. economy grew.", "Good."]),
        ("She left.[3] He stayed.", ["She left.[3]", "He stayed."]),
        ("He said “Stop!” Then he ran.", ["He said “Stop!”", "Then he ran."]),
        ("- first item\n- second item", ["first item", "second item"]),
        ("1. first item\n2. second item", ["first item", "second item"]),
        ("Read https://a.example/b.c?d=1 first. Then act.", ["Read https://a.example/b.c?d=1 first.", "Then act."]),
        ("", []),
        (" … \n\n ", []),
    ],
)
def test_a_sentence_ends_where_a_reader_would_end_it(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet=st.sampled_from("ab Dr.1!?[]\n-…“”。#🌍"), max_size=60))
def test_every_passage_stands_exactly_where_its_span_says(text: str) -> None:
    for passage in [*split_sentences(text), *split_passages(text)]:
        assert text[passage.start : passage.end] == passage.text
        assert passage.text == passage.text.strip()


@given(st.text(max_size=200))
def test_sentences_come_in_order_and_do_not_overlap(text: str) -> None:
    found = split_sentences(text)

    assert all(one.end <= other.start for one, other in pairwise(found))


def test_a_question_states_nothing() -> None:
    assert [one.is_statement for one in split_sentences("Is the earth flat? The earth is flat.")] == [False, True]


def test_a_short_paragraph_is_a_passage_beside_its_sentences() -> None:
    first, second, whole = split_passages("It rained all day. The river rose fast.\n\nNothing")

    assert (first.text, second.text) == ("It rained all day.", "The river rose fast.")
    assert whole.text == "It rained all day. The river rose fast."


def test_a_long_paragraph_is_looked_at_sentence_by_sentence_only() -> None:
    text = "It rained all day and night. " * 12

    assert len(split_passages(text)) == 12
