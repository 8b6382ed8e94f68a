"""Time and ids: one clock for the whole service. Everybody may import it.

Wall-clock times are aware UTC datetimes; on the wire they are ISO-8601 with ``Z`` and microseconds,
so that they sort as text. Milliseconds since the epoch are used only where Redis scores are.
"""

from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import uuid_utils


def utc_now() -> datetime:
    """Return the present moment as an aware UTC datetime."""
    return datetime.now(UTC)


def from_ms(ms: int) -> datetime:
    """Turn milliseconds since the epoch (a Redis score) into an aware UTC datetime."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def to_ms(moment: datetime) -> int:
    """Turn an aware datetime into whole milliseconds since the epoch, rounded down."""
    return int(moment.timestamp() * 1000)


def iso(moment: datetime) -> str:
    """Format an aware datetime as ``2026-11-22T09:30:00.000000Z``; sorts like the time it names."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def parse_iso(text: str) -> datetime:
    """Read what :func:`iso` wrote (any ISO-8601 with an offset) back into aware UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562): time-ordered, and in order inside a millisecond in one process."""
    return str(uuid_utils.uuid7())


def derived_id(first: str, second: str) -> str:
    """Make the UUIDv7 that follows from two ids: of the first one's time, and always the same for the same two."""
    digest = int.from_bytes(sha256(f"{first} {second}".encode()).digest()[:16])
    time_ms = UUID(first).int >> 80
    random = digest & ((1 << 80) - 1) & ~(0xF << 76) & ~(0x3 << 62)
    return str(UUID(int=time_ms << 80 | 0x7 << 76 | 0x2 << 62 | random))
