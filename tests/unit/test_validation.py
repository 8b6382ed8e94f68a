"""What the service takes as JSON, and what it says about what it does not take."""

import json
import math
from datetime import UTC, datetime
from typing import Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, JsonValue, ValidationError

from app.errors import FieldError, InvalidInput, MalformedJson
from app.jobs.fields import Identifier, Integer, Model, Moment, Number
from app.jobs.validation import (
    MAX_DEPTH,
    check_json,
    field_errors,
    is_plain,
    json_errors,
    parse_json,
    pointer,
    validate,
)

STORABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), values, max_size=4
        )
    ),
    max_leaves=20,
)


class Part(Model):
    size: Integer = Field(ge=1)


class Order(Model):
    at: Moment
    weight: Number | None = Field(None, ge=0, le=1)
    level: Literal["low", "high"] = "low"
    target: Integer | Identifier | None = None
    parts: list[Part] = []
    extra: dict[str, JsonValue] = {}


def nested(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value]
    return value


def errors_of(data: object, prefix: str = "") -> dict[str, FieldError]:
    with pytest.raises(InvalidInput) as caught:
        validate(Order, data, prefix)
    return {error.pointer: error for error in caught.value.errors}


@given(STORABLE)
def test_whatever_both_databases_can_hold_is_taken(value: JsonValue) -> None:
    assert json_errors(value) == []


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (math.nan, "finite_number"),
        (math.inf, "finite_number"),
        (-math.inf, "finite_number"),
        (2**63, "integer_range"),
        (-(2**63) - 1, "integer_range"),
        ("a\0b", "null_character"),
        ("a\ud800b", "lone_surrogate"),
        (datetime(2026, 1, 1, tzinfo=UTC), "not_json"),
        (b"bytes", "not_json"),
        ({1, 2}, "not_json"),
    ],
)
def test_a_value_that_cannot_be_stored_is_named_with_its_place(value: object, code: str) -> None:
    errors = json_errors({"a": [0, {"b": value}]}, "/params")

    assert [(error.pointer, error.code) for error in errors] == [("/params/a/1/b", code)]


@pytest.mark.parametrize(("name", "code"), [("a\0", "null_character"), ("\udfff", "lone_surrogate"), (7, "not_json")])
def test_a_member_name_that_cannot_be_stored_is_refused(name: object, code: str) -> None:
    assert [(error.pointer, error.code) for error in json_errors({"a": {name: 1}})] == [("/a", code)]


@pytest.mark.parametrize("depth", [1, 31, 32])
def test_nesting_of_32_levels_is_taken(depth: int) -> None:
    assert json_errors(nested(depth)) == []


def test_nesting_of_33_levels_is_refused() -> None:
    (error,) = json_errors(nested(33))

    assert error.code == "too_deep"
    assert error.pointer == "/0" * 32
    assert "32" in error.detail


def test_a_hostile_value_costs_at_most_a_hundred_errors() -> None:
    assert len(json_errors([math.nan] * 10_000)) == 100
    assert len(json_errors({f"{at}\0": at for at in range(10_000)})) == 100


def test_check_json_raises_with_every_error() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_json([math.nan, "\0"])

    assert [error.pointer for error in caught.value.errors] == ["/0", "/1"]


def test_check_json_takes_another_depth() -> None:
    check_json(nested(3), max_depth=3)

    with pytest.raises(InvalidInput) as caught:
        check_json(nested(3), max_depth=2)
    assert "2 levels" in caught.value.errors[0].detail


def test_integers_are_parsed_exactly_whatever_their_size() -> None:
    assert parse_json(b"[123456789012345678901234567890]") == [123456789012345678901234567890]


@pytest.mark.parametrize("document", [b"", b"{", b"NaN", b"[Infinity]", b"[-Infinity]", b"\xff", b"[1,]", b"[" * 5000])
def test_what_is_not_json_is_malformed(document: bytes) -> None:
    with pytest.raises(MalformedJson, match="not JSON"):
        parse_json(document)


@pytest.mark.parametrize("document", [b'"\\ud800"', b'{"\\udc00": 1}', b'"\\ud800x"', b'"\\ud800\\u0041"'])
def test_an_escaped_lone_surrogate_is_malformed_and_called_by_its_name(document: bytes) -> None:
    with pytest.raises(MalformedJson, match="lone surrogate"):
        parse_json(document)


def test_valid_data_becomes_the_model() -> None:
    order = validate(Order, {"at": "2026-01-01T01:00:00+01:00", "weight": 1, "target": "x", "parts": [{"size": 2.0}]})

    assert order == Order(at=datetime(2026, 1, 1, tzinfo=UTC), weight=1.0, target="x", parts=[Part(size=2)])


def test_every_error_is_reported_at_once_with_its_place_under_the_prefix() -> None:
    errors = errors_of({"weight": 1.5, "level": "mid", "parts": [{"size": 1}, {"size": 0}], "nope": 1}, "/3")

    assert {place: error.code for place, error in errors.items()} == {
        "/3/at": "missing",
        "/3/weight": "less_than_equal",
        "/3/level": "literal_error",
        "/3/parts/1/size": "greater_than_equal",
        "/3/nope": "extra_forbidden",
    }


def test_a_detail_says_what_would_be_right_and_what_came_instead() -> None:
    errors = errors_of({"at": "2026-01-01T00:00:00Z", "weight": 1.5, "level": "mid"})

    assert errors["/weight"].detail == "Input should be less than or equal to 1, not 1.5."
    assert errors["/level"].detail == "Input should be 'low' or 'high', not \"mid\"."


def test_a_detail_never_repeats_a_long_or_unprintable_value() -> None:
    assert "xxx" not in errors_of({"at": "x" * 1000})["/at"].detail
    assert "\0" not in errors_of({"at": "\0"})["/at"].detail


def test_a_place_that_is_no_json_and_does_not_fit_is_reported_once() -> None:
    errors = errors_of({"at": "2026-01-01T00:00:00Z", "weight": math.inf, "extra": {"big": 2**64}})

    assert {place: error.code for place, error in errors.items()} == {
        "/weight": "finite_number",
        "/extra/big": "integer_range",
    }


def test_data_that_fits_its_model_but_cannot_be_stored_is_refused() -> None:
    assert set(errors_of({"at": "2026-01-01T00:00:00Z", "extra": {"text": "\0"}})) == {"/extra/text"}


def test_a_pointer_names_a_place_in_the_data_and_no_member_of_a_union() -> None:
    assert set(errors_of({"at": "2026-01-01T00:00:00Z", "target": []})) == {"/target"}


def test_a_document_that_is_no_object_is_named_by_the_prefix_alone() -> None:
    assert set(errors_of([], "/7")) == {"/7"}


def test_a_document_with_thousands_of_errors_is_answered_with_one() -> None:
    with pytest.raises(InvalidInput) as caught:
        validate(Order, {"at": "2026-01-01T00:00:00Z"} | {f"x{at}": at for at in range(5000)})

    assert [(error.code, error.detail) for error in caught.value.errors] == [
        ("too_many_errors", "5,000 things are wrong.")
    ]


def test_pydantic_errors_are_translated_without_the_data_too() -> None:
    with pytest.raises(ValidationError) as caught:
        Part.model_validate({"size": True})

    (error,) = field_errors(caught.value, "/parts/0")

    assert error == FieldError(
        pointer="/parts/0/size", code="int_type", detail="Input should be a valid integer, not true."
    )


@pytest.mark.parametrize(
    ("path", "written"), [((), ""), (("a/b", 3, "~"), "/a~1b/3/~0"), (("",), "/"), (("~1",), "/~01")]
)
def test_a_pointer_follows_rfc_6901(path: tuple[str | int, ...], written: str) -> None:
    assert pointer(path) == written


@given(STORABLE | st.integers() | st.text())
def test_what_is_plain_has_nothing_that_cannot_be_stored(value: JsonValue) -> None:
    document = json.dumps(value).encode()

    assert not (is_plain(document) and json_errors(parse_json(document)))


@pytest.mark.parametrize(
    "document",
    [b'"\\u0000"', b"9223372036854775808", b"-9223372036854775809", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)],
)
def test_what_cannot_be_stored_is_not_plain(document: bytes) -> None:
    assert json_errors(parse_json(document))

    assert not is_plain(document)


def test_what_clients_send_is_plain() -> None:
    assert is_plain(orjson.dumps({"parameters": {"text": "Grüße", "at": "2026-01-01T00:00:00Z", "n": [1, 2.5, None]}}))
