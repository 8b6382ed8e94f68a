"""What a credential allows."""

from collections.abc import Iterable
from enum import StrEnum

from app.errors import BadRequest


class Scope(StrEnum):
    """One thing that a credential may allow; in the database and in tokens they are joined by spaces."""

    TASKS_READ = "tasks:read"
    """See one's own tasks and records, and how the service is doing."""
    TASKS_WRITE = "tasks:write"
    """Submit, change and cancel one's own tasks, and make keys that allow no more than this one."""
    ANY_USER = "tasks:any-user"
    """Name any user as the one that a task or a record is about; for the back-end of a product."""
    RECORDS_WRITE = "records:write"
    """Store one's own records."""
    ADMIN = "admin"
    """Everything."""


Scopes = frozenset[Scope]

ORDINARY: Scopes = frozenset({Scope.TASKS_READ, Scope.TASKS_WRITE, Scope.RECORDS_WRITE})
EVERYTHING: Scopes = frozenset(Scope)


def known_scopes(text: str) -> Scopes:
    """Return the scopes among words; words that are none of ours are somebody else's business."""
    return frozenset(scope for scope in Scope if scope in text.split())


def parse_scopes(words: Iterable[str]) -> Scopes:
    """Return these scopes; raise BadRequest for a word that is none."""
    wanted = set(words)
    unknown = wanted - set(Scope)
    if unknown or not wanted:
        wrong = f"There is no scope {sorted(unknown)[0]!r}" if unknown else "At least one scope is needed"
        raise BadRequest(f"{wrong}; known are: {', '.join(Scope)}.")
    return known_scopes(" ".join(wanted))


def scopes_text(scopes: Iterable[Scope]) -> str:
    """Write scopes as words, sorted."""
    return " ".join(sorted(scopes))


def covers(scopes: Scopes, wanted: Scopes) -> bool:
    """Whether ``scopes`` allow everything that ``wanted`` do."""
    return Scope.ADMIN in scopes or wanted <= scopes
