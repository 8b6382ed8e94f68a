"""Judging what comes from outside: is it JSON that both databases can hold, and does it fit its model.

Pure functions for everybody above ``app.errors``. Every error names its place as a JSON pointer and
says what would be right.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from app.errors import FieldError, InvalidInput, MalformedJson

MAX_DEPTH = 32
MAX_LISTED = 100  # errors listed of one value; a hostile body could otherwise cost a hundred times its size
MAX_TRANSLATED = 1_000

# \u, an exponent, 18 digits in a row, and a little that is no JSON: in this form it is looked for ten times as fast.
_NOT_PLAIN = re.compile(rb"[0-9\\](?:[eEu]|[0-9]{17})")
_CONTAINERS = (dict, list, tuple)
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
_NOT_FINITE = ("finite_number", "A number must be finite; send null for NaN or infinity.")
_INTEGER_RANGE = ("integer_range", "An integer must lie within -2^63 and 2^63-1; send a larger one as a string.")
_NULL_CHARACTER = ("null_character", "The character U+0000 cannot be stored; leave it out.")
_LONE_SURROGATE = ("lone_surrogate", "A lone surrogate is not a character; send whole characters.")

_SHOWN_LENGTH = 60
_UNKNOWN = object()

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: object, prefix: str = "") -> M:
    """Return ``data`` (parsed JSON) as a ``model``; raise InvalidInput with every error, pointers under ``prefix``."""
    errors = json_errors(data, prefix)
    try:
        valid = model.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(merge_errors(errors, field_errors(error, prefix, data=data))) from error
    if errors:
        raise InvalidInput(errors)
    return valid


def parse_json(document: bytes) -> object:
    """Parse UTF-8 JSON with integers kept exact; raise MalformedJson that says where it stops being JSON."""
    try:
        return from_json(document, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error)
        if "hex escape" in reason:
            reason += " (a lone surrogate such as \\ud800 is not a character)"
        raise MalformedJson(f"This is not JSON: {reason}.") from error


def check_json(value: object, max_depth: int = MAX_DEPTH) -> None:
    """Raise InvalidInput unless ``value`` is JSON that both databases can hold (see :func:`json_errors`)."""
    if errors := json_errors(value, max_depth=max_depth):
        raise InvalidInput(errors)


def json_errors(value: object, prefix: str = "", *, max_depth: int = MAX_DEPTH) -> list[FieldError]:
    """Return what keeps ``value`` from being stored as JSON: the first 100 errors, none if it is fine.

    Refused are NaN and infinities, integers beyond 64 bits, U+0000 and lone surrogates (PostgreSQL
    holds neither), nesting deeper than ``max_depth`` containers, and whatever JSON has no word for.
    """
    inspection = _Inspection(prefix, max_depth)
    inspection.visit(value, ())
    return inspection.errors


def is_plain(document: bytes) -> bool:
    """Tell at a glance that a JSON document holds nothing that :func:`json_errors` would refuse.

    True is sure: without an escaped character there is no U+0000 and no surrogate, without 18 digits in a row or
    an exponent every number fits, and 32 opening brackets are no deeper than 32. False is no verdict.
    """
    return document.count(b"[") + document.count(b"{") <= MAX_DEPTH and _NOT_PLAIN.search(document) is None


def field_errors(error: ValidationError, prefix: str = "", *, data: object = _UNKNOWN) -> list[FieldError]:
    """Translate pydantic's errors: where, which code, and what would be right.

    With the ``data`` that was validated, pointers leave out the labels that pydantic adds for union members.
    Of a document with more than 1,000 errors only that is said.
    """
    if error.error_count() > MAX_TRANSLATED:
        return [FieldError(pointer=prefix, code="too_many_errors", detail=f"{error.error_count():,} things are wrong.")]
    return [
        FieldError(pointer=prefix + pointer(_place(found, data)), code=found["type"], detail=_advice(found))
        for found in error.errors(include_url=False)
    ]


def merge_errors(first: Sequence[FieldError], second: Sequence[FieldError]) -> list[FieldError]:
    """Join two lists of errors; of a place that both name, only the first list speaks."""
    named = {error.pointer for error in first}
    return [*first, *(error for error in second if error.pointer not in named)]


def pointer(path: Sequence[str | int]) -> str:
    """Write a path as a JSON pointer (RFC 6901): ``("a/b", 3)`` is ``/a~1b/3``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


class _Inspection:
    """A walk through one value, and what it found wrong."""

    def __init__(self, prefix: str, max_depth: int) -> None:
        self._prefix = prefix
        self._max_depth = max_depth
        self.errors: list[FieldError] = []

    def visit(self, value: object, path: tuple[str | int, ...]) -> None:
        if not isinstance(value, _CONTAINERS):
            self._report(path, _scalar_error(value))
        elif len(path) == self._max_depth:
            self._report(path, ("too_deep", f"Nested too deep: at most {self._max_depth} levels are taken."))
        elif isinstance(value, dict):
            for name in value:
                self._report(path, _name_error(name))
            self._visit_members(value.items(), path)
        else:
            self._visit_members(enumerate(value), path)

    def _visit_members(self, members: Iterable[tuple[str | int, object]], path: tuple[str | int, ...]) -> None:
        # Nearly all members are fine scalars; they pass without the cost of a path.
        for name, member in members:
            if (isinstance(member, _CONTAINERS) or _scalar_error(member)) and len(self.errors) < MAX_LISTED:
                self.visit(member, (*path, name))

    def _report(self, path: tuple[str | int, ...], wrong: tuple[str, str] | None) -> None:
        if wrong and len(self.errors) < MAX_LISTED:
            code, detail = wrong
            self.errors.append(FieldError(pointer=self._prefix + pointer(path), code=code, detail=detail))


def _name_error(name: object) -> tuple[str, str] | None:
    if isinstance(name, str):
        return _scalar_error(name)
    return "not_json", f"The name of a member must be a string, not {type(name).__name__}."


def _scalar_error(value: object) -> tuple[str, str] | None:
    if isinstance(value, str):
        return _text_error(value)
    if isinstance(value, float):
        return None if math.isfinite(value) else _NOT_FINITE
    if isinstance(value, int):
        return None if _MIN_INTEGER <= value <= _MAX_INTEGER else _INTEGER_RANGE
    if value is None:
        return None
    return "not_json", f"JSON has no {type(value).__name__}; send a string, number, boolean, array or object."


def _text_error(text: str) -> tuple[str, str] | None:
    if "\0" in text:
        return _NULL_CHARACTER
    return _LONE_SURROGATE if not text.isascii() and _has_lone_surrogate(text) else None


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _place(found: ErrorDetails, data: object) -> list[str | int]:
    *parents, last = found["loc"] or ("",)
    if data is _UNKNOWN or not found["loc"]:
        return list(found["loc"])
    place: list[str | int] = []
    for part in parents:
        member = _member(data, part)
        if member is not _UNKNOWN:
            place.append(part)
            data = member
    is_real = found["type"] == "missing" or _member(data, last) is not _UNKNOWN
    return [*place, last] if is_real else place


def _member(data: object, part: str | int) -> object:
    match data:
        case dict():
            return data.get(part, _UNKNOWN)
        case list() | tuple() if isinstance(part, int) and 0 <= part < len(data):
            return data[part]
    return _UNKNOWN


def _advice(found: ErrorDetails) -> str:
    match found["type"]:
        case "missing":
            return "This field is required."
        case "extra_forbidden":
            return "There is no such field; leave it out or correct its name."
    message = found["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return f"{message}{_instead_of(found['input'])}."


def _instead_of(value: object) -> str:
    if not (value is None or isinstance(value, str | int | float)) or _scalar_error(value):
        return ""
    shown = orjson.dumps(value).decode()
    return f", not {shown}" if len(shown) <= _SHOWN_LENGTH else ""
