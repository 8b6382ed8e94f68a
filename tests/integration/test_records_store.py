"""Stored records on both databases: who owns them, in which order they come, what a second upsert does."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import JsonValue

from app.database import Database, metadata, open_database
from app.errors import BadRequest, Conflict
from app.jobs.fields import Identifier, Integer, Model, Moment, Number
from app.records.record import Record, RecordType
from app.records.store import Page, Records
from app.settings import Settings

pytestmark = pytest.mark.databases("sqlite", "postgresql")

TABLES = sa.MetaData(naming_convention=metadata.naming_convention)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


class Inner(Model):
    x: Integer


class Note(Record):
    note_id: Identifier
    user_id: Identifier
    timestamp: Moment
    text: str = ""
    weight: Number | None = None
    index: Integer = 0
    flag: bool = False
    colour: Colour = Colour.RED
    seen_at: Moment | None = None
    names: tuple[str, ...] = ()
    inner: Inner | None = None
    metadata: dict[str, JsonValue] | None = None


class Fact(Record):
    id: Identifier
    date: Moment


class Audit(Record):
    event_id: Identifier
    user_id: Identifier | None = None
    timestamp: Moment


NOTES = RecordType(name="test-notes", model=Note, id_field="note_id", summary="Notes.", metadata=TABLES)
FACTS = RecordType(
    name="test-facts", model=Fact, id_field="id", user_field=None, time_field="date", summary="Facts.", metadata=TABLES
)
AUDITS = RecordType(name="test-audits", model=Audit, id_field="event_id", summary="Audit.", metadata=TABLES)


def note(name: str, at: int = 0, user: str = "ada", **changes: object) -> Note:
    return Note.model_validate({"note_id": name, "user_id": user, "timestamp": START + timedelta(seconds=at)} | changes)


def names(page: Page[Note]) -> list[str]:
    return [note.note_id for note in page.records]


@pytest.fixture
async def store(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(Settings(database_url=database_url, data_dir=tmp_path))
    try:
        _ = NOTES.table, FACTS.table, AUDITS.table
        async with database.write() as connection:
            await connection.run_sync(TABLES.create_all)
        yield database
    finally:
        await database.close()


@pytest.fixture
def records(store: Database) -> Records:
    return Records(store)


async def all_pages(records: Records, limit: int, **window: datetime | str) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await records.page(NOTES, after=cursor, limit=limit, **window)  # type: ignore[arg-type]  # names vary
        assert len(page.records) <= limit
        found += names(page)
        if (cursor := page.next_cursor) is None:
            return found


async def test_a_record_comes_back_as_it_was_stored(records: Records) -> None:
    full = note(
        "n1",
        text="Grüße 😀 'quoted' \\",
        weight=0.1,
        index=2**63 - 1,
        flag=True,
        seen_at=datetime(2026, 5, 5, 5, 5, 5, 123456, tzinfo=UTC),
        names=("a", "b"),
        inner={"x": 1},
        metadata={"deep": [1, 2.5, None, {"k": "v"}]},
    )

    stored = await records.upsert(NOTES, [full, note("bare")])

    assert stored == 2
    assert await records.get(NOTES, "n1") == full
    assert await records.get(NOTES, "bare") == note("bare")


async def test_an_upsert_replaces_every_field_of_the_users_own_record(records: Records) -> None:
    await records.upsert(NOTES, [note("n1", text="old", weight=1.0)])

    await records.upsert(NOTES, [note("n1", at=5, text="new")])

    assert await records.get(NOTES, "n1") == note("n1", at=5, text="new")
    assert await records.count(NOTES) == 1


async def test_an_upsert_can_be_repeated(records: Records) -> None:
    notes = [note(f"n{at:04}", at) for at in range(2500)]

    assert await records.upsert(NOTES, notes) == 2500
    assert await records.upsert(NOTES, notes) == 2500

    assert await records.count(NOTES) == 2500


async def test_of_one_id_in_one_call_the_last_record_wins(records: Records) -> None:
    assert await records.upsert(NOTES, [note("n1", text="first"), note("n2"), note("n1", text="last")]) == 2

    found = await records.get(NOTES, "n1")
    assert found is not None
    assert found.text == "last"


async def test_nothing_to_store_is_no_error(records: Records) -> None:
    assert await records.upsert(NOTES, []) == 0


async def test_a_record_of_another_user_is_never_overwritten(records: Records) -> None:
    await records.upsert(NOTES, [note("n1", text="hers"), note("n2", text="hers")])

    with pytest.raises(Conflict, match="n1, n2") as caught:
        await records.upsert(NOTES, [note(name, user="eve", text="mine") for name in ("n2", "n1", "n3")])

    assert caught.value.facts["ids"] == ["n1", "n2"]
    assert await records.get(NOTES, "n1") == note("n1", text="hers")


async def test_an_upsert_that_is_refused_stores_nothing_at_all(records: Records) -> None:
    await records.upsert(NOTES, [note("n1999")])

    with pytest.raises(Conflict):
        await records.upsert(NOTES, [note(f"n{at:04}", user="eve") for at in range(2500)])

    assert await records.count(NOTES) == 1


async def test_a_record_of_nobody_is_not_anybodys_to_take(records: Records) -> None:
    await records.upsert(AUDITS, [Audit(event_id="e1", timestamp=START)])

    with pytest.raises(Conflict, match="e1"):
        await records.upsert(AUDITS, [Audit(event_id="e1", user_id="eve", timestamp=START)])

    await records.upsert(AUDITS, [Audit(event_id="e1", timestamp=START + timedelta(days=1))])
    found = await records.get(AUDITS, "e1")
    assert found is not None
    assert found.timestamp == START + timedelta(days=1)


async def test_of_two_users_who_race_for_an_id_one_is_refused(records: Records) -> None:
    calls = [records.upsert(NOTES, [note("n1", user=user)]) for user in ("ada", "eve")]

    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "int"]
    assert await records.count(NOTES) == 1


async def test_concurrent_upserts_of_the_same_ids_in_any_order_all_succeed(records: Records) -> None:
    notes = [note(f"n{at:03}", at) for at in range(300)]
    orders = [notes, notes[::-1], notes[150:] + notes[:150], notes[::-2]]

    stored = await asyncio.gather(*(records.upsert(NOTES, order) for order in orders))

    assert stored == [300, 300, 300, 150]
    assert await records.count(NOTES) == 300


async def test_a_user_gets_only_records_of_their_own(records: Records) -> None:
    await records.upsert(NOTES, [note("a1"), note("e1", user="eve")])

    assert await records.get(NOTES, "a1", user_id="ada") == note("a1")
    assert await records.get(NOTES, "a1", user_id="eve") is None
    assert names(await records.page(NOTES, user_id="eve")) == ["e1"]
    assert await records.count(NOTES, user_id="eve") == 1
    assert await records.get(NOTES, "unknown") is None


async def test_reference_data_is_everybodys_to_read(records: Records) -> None:
    fact = Fact(id="f1", date=START)
    await records.upsert(FACTS, [fact])
    await records.upsert(FACTS, [fact])

    assert await records.get(FACTS, "f1", user_id="eve") == fact
    assert (await records.page(FACTS, user_id="eve")).records == [fact]
    assert await records.delete_user(FACTS, "eve") == 0
    assert await records.count(FACTS) == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_give_every_record_once_newest_first_also_where_times_are_equal(
    records: Records, limit: int
) -> None:
    await records.upsert(NOTES, [note(f"n{at}", at // 3) for at in range(7)])

    assert await all_pages(records, limit) == ["n6", "n5", "n4", "n3", "n2", "n1", "n0"]


async def test_the_last_page_has_no_cursor_even_when_it_is_full(records: Records) -> None:
    await records.upsert(NOTES, [note(f"n{at}", at) for at in range(4)])

    first = await records.page(NOTES, limit=2)
    last = await records.page(NOTES, limit=2, after=first.next_cursor)

    assert (names(first), names(last), last.next_cursor) == (["n3", "n2"], ["n1", "n0"], None)


async def test_records_that_arrive_while_a_list_is_read_neither_repeat_nor_hide_others(records: Records) -> None:
    await records.upsert(NOTES, [note(f"n{at}", at) for at in range(4)])
    first = await records.page(NOTES, limit=2)

    await records.upsert(NOTES, [note("newest", 9)])

    assert names(await records.page(NOTES, limit=2, after=first.next_cursor)) == ["n1", "n0"]


async def test_a_window_holds_its_start_and_not_its_end(records: Records) -> None:
    await records.upsert(NOTES, [note(f"n{at}", at) for at in range(5)])
    since, until = START + timedelta(seconds=1), START + timedelta(seconds=3)

    assert names(await records.page(NOTES, since=since, until=until)) == ["n2", "n1"]
    assert await all_pages(records, 1, since=since, until=until, user_id="ada") == ["n2", "n1"]
    assert await records.count(NOTES, since=since, until=until) == 2


async def test_a_time_with_another_offset_is_the_same_moment(records: Records) -> None:
    await records.upsert(NOTES, [note("early", timestamp="2026-01-01T01:00:00+02:00"), note("late")])

    assert names(await records.page(NOTES)) == ["late", "early"]
    assert names(await records.page(NOTES, until=START)) == ["early"]


async def test_a_list_does_not_begin_at_a_cursor_that_is_not_ours(records: Records) -> None:
    with pytest.raises(BadRequest, match="cursor"):
        await records.page(NOTES, after="nonsense")


async def test_deleting_a_user_leaves_the_others(records: Records) -> None:
    hers = [note(f"a{at}", at) for at in range(2001)]
    await records.upsert(NOTES, [*hers, note("e1", user="eve")])

    assert await records.delete_user(NOTES, "ada") == 2001
    assert await records.delete_user(NOTES, "ada") == 0
    assert names(await records.page(NOTES)) == ["e1"]


@pytest.mark.databases("sqlite")
async def test_a_users_page_is_read_from_the_index_without_sorting(store: Database) -> None:
    query = """
        EXPLAIN QUERY PLAN
        SELECT * FROM test_notes WHERE user_id = 'ada' AND (timestamp, note_id) < ('2026', 'x')
        ORDER BY timestamp DESC, note_id DESC
    """

    async with store.read() as connection:
        plan = (await connection.execute(sa.text(query))).all()

    assert len(plan) == 1
    assert "USING INDEX ix_test_notes_user_id_timestamp_note_id" in plan[0].detail
