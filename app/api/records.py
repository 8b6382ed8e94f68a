"""The record routes: store and list the data that jobs work on, one pair of routes per kind of record."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, RootModel

from app.api.auth import Caller
from app.api.endpoint import Call, Endpoint, endpoint
from app.api.filters import Limit, Text
from app.api.reading import JSON_TYPES, MIB
from app.credentials.scopes import Scope
from app.errors import FieldError, Forbidden, InvalidInput
from app.jobs.fields import Model, Moment
from app.jobs.validation import MAX_LISTED
from app.records.audit_entries import RESERVED, AuditEntry
from app.records.ingest import parse_records
from app.records.record import AnyRecordType, Record

MAX_BODY = 16 * MIB
MEDIA_TYPES = (
    *JSON_TYPES,
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
)

_QUICK = 64 * 1024  # bytes; reading a longer body would keep the event loop for too long

R = TypeVar("R", bound=Record)


class StoredRecords(Model):
    """Records were stored."""

    kind: str
    """The kind of record."""
    stored: int
    """How many, new ones and new versions of known ones together."""


class RecordPage(Model, Generic[R]):
    """One page of records, newest first."""

    records: tuple[R, ...]
    """The records."""
    total_count: int
    """How many there are of this description, on all pages."""
    limit: int
    """The most records on this page."""
    next_cursor: str | None
    """Where the next page starts; null on the last."""


class RecordQuery(Model):
    """Which records are meant."""

    user_id: Text | None = None
    """Whose; by default the caller's own, for administrators everybody's."""
    since: Moment | None = None
    """Of this time or later."""
    until: Moment | None = None
    """Before this time."""
    limit: Limit = 100
    """The most records to answer."""
    cursor: Annotated[str, Field(max_length=1000)] | None = None
    """The ``next_cursor`` of the page before."""


def record_endpoints(record_types: Mapping[str, AnyRecordType]) -> Iterator[Endpoint]:
    """Yield the routes of every kind of record."""
    for record_type in record_types.values():
        yield _store_endpoint(record_type)
        yield _list_endpoint(record_type)


def reader_of(record_type: AnyRecordType, caller: Caller, wanted: str | None) -> str | None:
    """Return whose records a caller reads, None for everybody's; raises Forbidden for another user's."""
    if caller.is_admin or record_type.user_field is None:
        return wanted
    if wanted is not None and not caller.may_act_for(wanted):
        raise Forbidden(
            f"To read another user's records needs the scope {Scope.ANY_USER.value!r}, or an administrator."
        )
    return wanted or caller.user_id


def writer_of(record_type: AnyRecordType, caller: Caller) -> str | None:
    """Return whose records a caller may write, None for anybody's; raises Forbidden where it may write none."""
    if caller.is_admin:
        return None
    if record_type.user_field is None:
        raise Forbidden(f"{record_type.name} belong to nobody; only administrators write them.")
    return None if caller.may(Scope.ANY_USER) else caller.user_id


def _store_endpoint(record_type: AnyRecordType) -> Endpoint:
    record_model: Any = record_type.model

    async def store_records(call: Call, raw: bytes) -> StoredRecords:
        owner = writer_of(record_type, call.caller)
        records = await _parse(record_type, raw, call.request.headers.get("Content-Type", ""), owner)
        _refuse_reserved(records)
        stored = await call.installation.records.upsert(record_type, records)
        return StoredRecords(kind=record_type.name, stored=stored)

    return endpoint(
        "POST",
        f"/records/{record_type.name}",
        store_records,
        scope=Scope.RECORDS_WRITE,
        body=RootModel[tuple[record_model, ...]],
        body_limit=MAX_BODY,
        media_types=MEDIA_TYPES,
        summary=f"Store {record_type.name}, all or none, as a JSON array or NDJSON; known ids are replaced.",
        operation_id=f"store_{record_type.name.replace('-', '_')}",
    )


def _list_endpoint(record_type: AnyRecordType) -> Endpoint:
    record_model: Any = record_type.model

    async def list_records(call: Call, query: RecordQuery) -> RecordPage[record_model]:
        user_id = reader_of(record_type, call.caller, query.user_id)
        store, since, until = call.installation.records, query.since, query.until
        page = await store.page(
            record_type, user_id=user_id, since=since, until=until, after=query.cursor, limit=query.limit
        )
        count = await store.count(record_type, user_id=user_id, since=since, until=until)
        return RecordPage[record_model].model_construct(
            records=tuple(page.records), total_count=count, limit=query.limit, next_cursor=page.next_cursor
        )

    return endpoint(
        "GET",
        f"/records/{record_type.name}",
        list_records,
        summary=f"List {record_type.name}, newest first.",
        operation_id=f"list_{record_type.name.replace('-', '_')}",
    )


def _refuse_reserved(records: Sequence[Record]) -> None:
    """Raise InvalidInput for an audit entry that claims to be one of the service's own, or would replace one."""
    detail = f"Ids that begin with {RESERVED!r} are those of the service's own entries; choose another."
    wrong = [
        FieldError(pointer=f"/{at}/entry_id", code="reserved", detail=detail)
        for at, record in enumerate(records)
        if isinstance(record, AuditEntry) and record.entry_id.startswith(RESERVED)
    ]
    if wrong:
        raise InvalidInput(wrong[:MAX_LISTED])


async def _parse(record_type: AnyRecordType, raw: bytes, content_type: str, owner: str | None) -> list[Record]:
    if len(raw) <= _QUICK:
        return parse_records(record_type, raw, content_type=content_type, owner=owner)
    return await asyncio.to_thread(parse_records, record_type, raw, content_type=content_type, owner=owner)
