"""A cursor is opaque text: what we wrote comes back, and nothing else is taken."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.records.store import Cursor


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # hypothesis adds the zone
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_a_cursor_survives_its_encoding(at: datetime, record_id: str) -> None:
    cursor = Cursor(at, record_id)

    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "é",
        "A",
        "W10",
        "WzEsMl0",
        "WyJ4IiwgInkiXQ",
        "bnVsbA",
        "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzAxOjAwIiwieCJd",
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        Cursor.decode(text)
