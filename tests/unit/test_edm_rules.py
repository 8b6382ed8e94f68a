"""The plain rules: phrases, citations, stale years, contradictions."""

from datetime import UTC, datetime, timedelta

import pytest

from app.jobs.edm import DebtSeverity, DebtType
from app.records.edm_debts import EdmDebt
from app.records.interactions import Interaction
from workers.families.edm.checks import Checks
from workers.families.edm.debts import debt_id, find_debts, state
from workers.families.edm.memory import Memory
from workers.families.edm.misinformation import find_claims, places_in
from workers.families.edm.ranking import Docket, priority
from workers.families.edm.rules import find_faults

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KNOWN = (
    "Everyone knows that coffee is harmful. Studies show a 40% drop in focus. "
    "Research indicates benefits (Smith, 2020). Many people agree. Clearly, this is settled."
)


def interaction(response: str, *, prompt: str = "", name: str = "i", at: datetime = NOW) -> Interaction:
    return Interaction(interaction_id=name, user_id="u", timestamp=at, prompt=prompt, response=response)


def faults(sentence: str) -> list[DebtType]:
    return [fault.debt_type for fault in find_faults(sentence, NOW)]


def contradicted(first: str, second: str) -> bool:
    memory = Memory()
    memory.remember(first, "i")
    return memory.find_contradicted(second) is not None


def test_the_known_text_has_the_known_debts() -> None:
    debts = find_debts(state([interaction(KNOWN)]), Memory(), Checks([]))

    assert sorted(debt.debt_type for debt in debts) == [
        DebtType.MISSING_CITATION,
        DebtType.UNFALSIFIABLE,
        DebtType.UNFALSIFIABLE,
        DebtType.VAGUE_CLAIM,
    ]
    for debt in debts:
        assert debt.span is not None
        assert KNOWN[debt.span.start : debt.span.end] == debt.claim


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("EVERYONE KNOWS THAT tea is good.", DebtType.UNFALSIFIABLE),
        ("It’s obvious that tea is good.", DebtType.UNFALSIFIABLE),
        ("Undeniably, tea is good.", DebtType.UNFALSIFIABLE),
        ("Tea is good, without a doubt.", DebtType.UNFALSIFIABLE),
        ("No one can deny that tea is good.", DebtType.UNFALSIFIABLE),
        ("Experts say tea is good.", DebtType.MISSING_CITATION),
        ("It has been proven that tea is good.", DebtType.MISSING_CITATION),
        ("Statistics show that tea is good.", DebtType.MISSING_CITATION),
        ("Some say tea is good.", DebtType.VAGUE_CLAIM),
        ("It is believed that tea is good.", DebtType.VAGUE_CLAIM),
        ("Generally speaking, tea is good.", DebtType.VAGUE_CLAIM),
        ("As of 2019, the city has one million people.", DebtType.STALE),
        ("The latest figures of 2018 put it at 4 percent.", DebtType.STALE),
    ],
)
def test_each_phrase_makes_its_debt(sentence: str, expected: DebtType) -> None:
    assert faults(sentence) == [expected]


@pytest.mark.parametrize(
    "sentence",
    [
        "The water ran unclearly over the stones.",
        "Case studies showed up in the mail.",
        "Somebody knows that tea is good.",
        "As of 2025, the city has one million people.",
        "The treaty was signed in 1815.",
        "In 2018 the sea was higher than it is today.",
        "Currently it costs 2,019 euros.",
    ],
)
def test_a_phrase_counts_as_whole_words_and_a_year_as_a_current_one_only(sentence: str) -> None:
    assert faults(sentence) == []


@pytest.mark.parametrize(
    "citation", ["[3]", "[3, 4]", "(Smith, 2020)", "(see Smith et al., 2020a)", "doi:10.1/x", "https://a.example/b"]
)
def test_a_citation_in_the_same_sentence_clears_the_claim(citation: str) -> None:
    assert faults(f"Studies show a drop in focus {citation}.") == []


def test_a_citation_in_another_sentence_clears_nothing() -> None:
    debts = find_debts(state([interaction("Studies show a drop in focus. It is in a book [3].")]), Memory(), Checks([]))

    assert [debt.debt_type for debt in debts] == [DebtType.MISSING_CITATION]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The company employs 500 people.", "The company employs 700 people."),
        ("Green tea contains caffeine.", "Green tea does not contain caffeine."),
        ("The tower weighs 1,200 tons.", "The tower weighs 2,200 tons."),
    ],
)
def test_another_number_or_a_negation_contradicts(first: str, second: str) -> None:
    assert contradicted(first, second)
    assert contradicted(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The company employs 500 people.", "The company employs 500 people."),
        ("The tower weighs 1,200 tons.", "The tower weighs 1200 tons."),
        ("In 2019 the company employed 500 people.", "In 2020 the company employed 700 people."),
        ("The company employs 500 people.", "The company employs people."),
        ("The company employs 500 people.", "The city employs 700 people."),
        ("Cats eat fish.", "Cats do not eat vegetables."),
        ("The dog bit the man not the cat.", "The man bit the dog."),
        ("The company employs 500 people.", "The company does not employ 700 people."),
    ],
)
def test_what_says_the_same_or_speaks_of_something_else_contradicts_nothing(first: str, second: str) -> None:
    assert not contradicted(first, second)


def test_the_same_claim_in_another_spelling_is_the_same_debt() -> None:
    assert debt_id("u", "Everyone knows: tea is good!", DebtType.UNFALSIFIABLE) == debt_id(
        "u", "everyone knows tea is good.", DebtType.UNFALSIFIABLE
    )
    assert debt_id("u", "a b c", DebtType.STALE) != debt_id("v", "a b c", DebtType.STALE)


def test_a_claim_said_twice_is_one_debt_seen_in_both_places() -> None:
    first, second = interaction(KNOWN, name="a"), interaction(KNOWN, name="b", at=NOW + timedelta(hours=1))

    debts = find_debts(state([first, second]), Memory(), Checks([]))

    assert len(debts) == 4
    assert {debt.seen_in for debt in debts} == {("a", "b")}
    assert {debt.interaction_id for debt in debts} == {"a"}


@pytest.mark.parametrize("piece", ["a. ", "(", "( a ", "A-", "A ", " ", "\n", "- ", "1. ", "studies  ", "—@"])
def test_no_text_takes_more_than_a_moment(piece: str) -> None:
    text = (piece * 200_000)[:200_000]

    assert find_debts(state([interaction(text)]), Memory(), Checks([])) == []
    assert find_claims(places_in([interaction(text)]), Checks([])).findings == []


def debt(name: str, severity: DebtSeverity, *, days: float = 0, seen: int = 1) -> EdmDebt:
    return EdmDebt(
        debt_id=name,
        user_id="u",
        timestamp=NOW - timedelta(days=days),
        claim="c",
        debt_type=DebtType.VAGUE_CLAIM,
        severity=severity,
        seen_in=tuple(f"{name}-{at}" for at in range(seen)),
    )


def test_graver_older_and_more_frequent_debts_come_first() -> None:
    plain = debt("plain", DebtSeverity.MEDIUM)
    graver, older = debt("graver", DebtSeverity.HIGH), debt("older", DebtSeverity.MEDIUM, days=15)
    frequent = debt("frequent", DebtSeverity.MEDIUM, seen=8)

    assert priority(plain, NOW) == 2
    assert (priority(graver, NOW), priority(older, NOW), priority(frequent, NOW)) == (4, 3, 8)
    docket = Docket(NOW, DebtSeverity.LOW)
    docket.take([plain, graver, older, frequent])
    assert [one.debt_id for one in docket.recommendations()] == ["frequent", "graver", "older", "plain"]


def test_what_is_below_the_least_severity_is_not_reported() -> None:
    docket = Docket(NOW, DebtSeverity.HIGH)

    docket.take([debt("low", DebtSeverity.LOW), debt("high", DebtSeverity.HIGH)])

    assert docket.by_type[DebtType.VAGUE_CLAIM] == 1
    assert docket.by_severity[DebtSeverity.LOW] == 0


def test_a_critical_debt_and_a_backlog_raise_an_alert() -> None:
    docket = Docket(NOW, DebtSeverity.LOW)

    docket.take([debt(f"high-{at}", DebtSeverity.HIGH) for at in range(9)])
    assert docket.alerts() == ()
    docket.take([debt("high-9", DebtSeverity.HIGH), debt("critical", DebtSeverity.CRITICAL)])

    assert [(alert.kind, len(alert.debt_ids)) for alert in docket.alerts()] == [("critical_debt", 1), ("backlog", 10)]
