"""The record of what administrators, and whoever changes credentials, have done: audit entries of our own."""

from dataclasses import dataclass
from typing import Any

from app.clock import new_id, utc_now
from app.errors import ServiceError
from app.log import get_log
from app.records.audit_entries import AUDIT_ENTRIES, RESERVED, AuditEntry, AuditSeverity
from app.records.store import Records

log = get_log()


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that was done, or tried."""

    actor: str | None  # None is whoever sits at the machine itself
    action: str
    resource: str
    result: str  # success, or the code of the error
    component: str  # api, or cli
    details: dict[str, Any]
    ip: str | None = None
    credential: str | None = None


async def record_act(records: Records, act: Act) -> None:
    """Store an act as an audit entry; one that cannot be stored is logged instead, for it was done all the same."""
    entry = AuditEntry(
        entry_id=RESERVED + new_id(),
        user_id=act.actor,
        timestamp=utc_now(),
        event_type="admin_act",
        severity=AuditSeverity.INFO if act.result == "success" else AuditSeverity.WARNING,
        action=act.action,
        session_id=act.credential,
        component=act.component,
        details=act.details,
        result=act.result,
        ip_address=act.ip,
        resource=act.resource[:1000],
    )
    try:
        await records.upsert(AUDIT_ENTRIES, [entry])
    except ServiceError as error:
        log.error("audit_entry_not_stored", code=error.code, entry=entry.model_dump(mode="json"))
