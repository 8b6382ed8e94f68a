"""The record routes: the data that jobs work on, the same few routes for every kind of record."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, NoReturn, TypeVar

from pydantic import Field, RootModel

from app.api.auth import Caller
from app.api.endpoint import Call, Endpoint, endpoint
from app.api.filters import Limit, Text
from app.api.reading import JSON_TYPES, MIB
from app.clock import utc_now
from app.credentials.scopes import Scope
from app.errors import FieldError, Forbidden, InvalidInput, NotFound
from app.jobs.fields import Model, Moment
from app.jobs.validation import MAX_LISTED, json_errors
from app.records.audit_entries import RESERVED, AuditEntry
from app.records.erasure import erase_one, erase_user
from app.records.ingest import parse_records
from app.records.record import AnyRecordType, Record, RecordAction

MAX_BODY = 16 * MIB
MEDIA_TYPES = (
    *JSON_TYPES,
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
)

_MAX_ID = 255
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


class DeletedRecords(Model):
    """Records were deleted for good."""

    kind: str
    """The kind of record."""
    deleted: int
    """How many."""


class DeletedUser(Model):
    """All records of a user were deleted for good; the history of their tasks stays."""

    user_id: str
    """Whose they were."""
    deleted: dict[str, int]
    """How many of each kind of record."""
    total: int
    """How many altogether."""


class Owner(Model):
    """Whose records are meant."""

    user_id: Text
    """Whose; other people's are for administrators."""


def record_endpoints(record_types: Mapping[str, AnyRecordType]) -> Iterator[Endpoint]:
    """Yield the routes of every kind of record."""
    for record_type in record_types.values():
        yield _store_endpoint(record_type)
        yield _list_endpoint(record_type)
        yield _show_endpoint(record_type)
        yield _delete_endpoint(record_type)
        if record_type.user_field is not None:
            yield _erase_endpoint(record_type)
        for action in record_type.actions:
            yield _action_endpoint(record_type, action)
    yield _erase_user_endpoint([found for found in record_types.values() if found.user_field is not None])


def reader_of(record_type: AnyRecordType, caller: Caller, wanted: str | None) -> str | None:
    """Return whose records a caller reads, None for everybody's; raises Forbidden for another user's."""
    if record_type.is_admin_only and not caller.is_admin:
        raise Forbidden(f"{record_type.name} are for administrators only.")
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


def eraser_of(caller: Caller, owner: str) -> str:
    """Return whose records a caller deletes; raises Forbidden for another user's."""
    if not caller.may_see(owner):
        raise Forbidden("This key may delete the records of its own user only.")
    return owner


def _store_endpoint(record_type: AnyRecordType) -> Endpoint:
    record_model: Any = record_type.model

    async def store_records(call: Call, raw: bytes) -> StoredRecords:
        owner = _writer(record_type, call)
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
        unpacks=True,
        summary=f"Store {record_type.name}, all or none, as a JSON array or NDJSON, packed with gzip or not; "
        "known ids are replaced.",
        operation_id=_operation("store", record_type),
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
        operation_id=_operation("list", record_type),
    )


def _show_endpoint(record_type: AnyRecordType) -> Endpoint:
    record_model: Any = record_type.model

    async def show_record(call: Call) -> record_model:
        user_id = reader_of(record_type, call.caller, None)
        record = await call.installation.records.get(record_type, _id_of(record_type, call), user_id=user_id)
        return record or _missing(record_type)

    summary = f"Show one of the {record_type.name}."
    return endpoint(
        "GET", _path(record_type), show_record, summary=summary, operation_id=_operation("show", record_type)
    )


def _delete_endpoint(record_type: AnyRecordType) -> Endpoint:
    async def delete_record(call: Call) -> DeletedRecords:
        owner, record_id = _writer(record_type, call), _id_of(record_type, call)
        if record_type.model is AuditEntry and record_id.startswith(RESERVED):
            raise Forbidden("What the service itself has noted is not deleted here; retention archives it first.")
        await _note_owner(record_type, call, record_id)
        files = call.installation.settings.models_path
        if not await erase_one(call.installation.records, record_type, record_id, user_id=owner, files=files):
            _missing(record_type)
        return DeletedRecords(kind=record_type.name, deleted=1)

    summary = f"Delete one of the {record_type.name} for good."
    return endpoint(
        "DELETE",
        _path(record_type),
        delete_record,
        scope=Scope.RECORDS_WRITE,
        summary=summary,
        operation_id=_operation("delete", record_type),
    )


def _erase_endpoint(record_type: AnyRecordType) -> Endpoint:
    async def delete_records(call: Call, query: Owner) -> DeletedRecords:
        house, owner = call.installation, _eraser(call, query.user_id)
        deleted = await erase_user(house.records, record_type, owner, files=house.settings.models_path)
        return DeletedRecords(kind=record_type.name, deleted=deleted)

    return endpoint(
        "DELETE",
        f"/records/{record_type.name}",
        delete_records,
        scope=Scope.RECORDS_WRITE,
        summary=f"Delete all {record_type.name} of a user for good.",
        operation_id=_operation("delete_all", record_type),
    )


def _erase_user_endpoint(record_types: Sequence[AnyRecordType]) -> Endpoint:
    async def delete_user_records(call: Call, query: Owner) -> DeletedUser:
        """Delete everything that is stored about a user for good, trained models with their files too."""
        house, owner = call.installation, _eraser(call, query.user_id)
        files = house.settings.models_path
        deleted = {
            record_type.name: await erase_user(house.records, record_type, owner, files=files)
            for record_type in record_types
        }
        return DeletedUser(user_id=owner, deleted=deleted, total=sum(deleted.values()))

    return endpoint("DELETE", "/records", delete_user_records, scope=Scope.RECORDS_WRITE)


def _action_endpoint(record_type: AnyRecordType, action: RecordAction) -> Endpoint:
    record_model: Any = record_type.model
    body_model: Any = action.body

    async def act(call: Call, body: body_model) -> record_model:
        owner, record_id, now = _writer(record_type, call), _id_of(record_type, call), utc_now()
        await _note_owner(record_type, call, record_id)
        changed = await call.installation.records.change(
            record_type, record_id, lambda record: action.apply(record, body, now), user_id=owner
        )
        return changed or _missing(record_type)

    return endpoint(
        "POST",
        f"{_path(record_type)}/{action.name}",
        act,
        scope=Scope.RECORDS_WRITE,
        summary=action.summary,
        operation_id=_operation(action.name, record_type),
    )


def _writer(record_type: AnyRecordType, call: Call) -> str | None:
    """Return whose records this call may write; what belongs to nobody is an administrator's to write, and noted."""
    owner = writer_of(record_type, call.caller)
    if record_type.user_field is None:
        call.powers.append(record_type.name)
    return owner


def _eraser(call: Call, asked: str) -> str:
    owner = eraser_of(call.caller, asked)
    if owner != call.caller.user_id:
        call.foreign.append(owner)
    return owner


async def _note_owner(record_type: AnyRecordType, call: Call, record_id: str) -> None:
    """Note whose record an administrator is about to change."""
    if record_type.user_field is None or not call.caller.is_admin:
        return
    record = await call.installation.records.get(record_type, record_id)
    owner = None if record is None else getattr(record, record_type.user_field)
    if owner is not None and owner != call.caller.user_id:
        call.foreign.append(owner)


def _path(record_type: AnyRecordType) -> str:
    return f"/records/{record_type.name}/{{id}}"


def _operation(verb: str, record_type: AnyRecordType) -> str:
    return f"{verb}_{record_type.name.replace('-', '_')}"


def _id_of(record_type: AnyRecordType, call: Call) -> str:
    """Return the id that the path names; raises NotFound for one that no database can hold."""
    record_id: str = call.request.match_info["id"]
    if len(record_id) > _MAX_ID or json_errors(record_id):
        _missing(record_type)
    return record_id


def _missing(record_type: AnyRecordType) -> NoReturn:
    raise NotFound(f"There is no such record among {record_type.name}: not found.")


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
