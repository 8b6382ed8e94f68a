"""What params name must be there when a job is submitted. Used by ``app.lifecycle`` before it accepts anything.

Which param names what is data of the job type (:class:`app.jobs.contract.Reference`), so that no work and no
library of a family is imported here.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from app.database import Database
from app.errors import FieldError, UnknownName
from app.jobs.contract import Extra, Reference, Word
from app.jobs.validation import MAX_LISTED
from app.records.names import list_names, read_known
from app.records.record import AnyRecordType, load_record_types
from app.settings import Settings

_SHOWN = 20  # of a user's own names, in an error
_DIRECTORY = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """One name in the params of one job."""

    reference: Reference
    name: str
    user_id: str | None  # whose record it may be
    place: str  # JSON pointer to it


class References:
    """Looks names up: among the words of the job type, and among the user's records."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def check(self, mentions: Sequence[Mention]) -> None:
        """Raise UnknownName, with an error for each mention that means nothing; costs nothing without mentions."""
        faults: list[FieldError] = []
        named: defaultdict[Reference, list[Mention]] = defaultdict(list)
        for mention in mentions:
            word = mention.reference.word(mention.name)
            if word is None:
                named[mention.reference].append(mention)
            elif wrong := _fault(word, mention.name, self._settings):
                faults.append(FieldError(pointer=mention.place, code="unavailable_name", detail=wrong))
        for reference, some in named.items():
            faults += await self._missing(reference, some)
        if faults:
            raise UnknownName(faults)

    async def _missing(self, reference: Reference, mentions: Sequence[Mention]) -> list[FieldError]:
        record_type = self._record_types[reference.records]
        wanted = [(mention.user_id or "", mention.name) for mention in mentions]
        known = await read_known(self._database, record_type, reference.by, wanted)
        unknown = [mention for mention, pair in zip(mentions, wanted, strict=True) if pair not in known]
        return [
            FieldError(pointer=mention.place, code="unknown_name", detail=await self._advice(mention))
            for mention in unknown[:MAX_LISTED]
        ]

    async def _advice(self, mention: Mention) -> str:
        reference, user_id = mention.reference, mention.user_id or ""
        record_type = self._record_types[reference.records]
        own = await list_names(self._database, record_type, reference.by[-1], user_id, limit=_SHOWN)
        known = ", ".join([*map(str, reference.words), *own])
        return f"There is no {reference.what} {mention.name!r} of {user_id!r}; known are: {known}."

    @cached_property
    def _record_types(self) -> dict[str, AnyRecordType]:
        return load_record_types()


def directory_of(name: str, word: Word, settings: Settings) -> Path | None:
    """Return the directory that a name of the form ``text:directory`` means; None if there is no such one.

    A name is one component of a path, and a link that leads out of the parent directory leads nowhere.
    """
    if word.below is None or not _DIRECTORY.fullmatch(inner := name.partition(":")[2]):
        return None
    root: Path = getattr(settings, word.below).resolve()
    found = (root / inner).resolve()
    return found if found.parent == root and found.is_dir() else None


def _fault(word: Word, name: str, settings: Settings) -> str | None:
    if word.extra is not None and not is_installed(word.extra):
        return f"{word.text!r} needs the extra {word.extra.name!r}: install asyncjobs-service[{word.extra.name}]."
    if word.below is not None and directory_of(name, word, settings) is None:
        root: Path = getattr(settings, word.below)
        inside = sorted(path.name for path in root.iterdir())[:_SHOWN] if root.is_dir() else []
        known = ", ".join(f"{word.text}:{one}" for one in inside if _DIRECTORY.fullmatch(one))
        return f"{name!r} names no directory that is there; known are: {known or 'none'}."
    return None


@cache
def is_installed(extra: Extra) -> bool:
    """Tell whether the libraries of an extra are there, without importing them."""
    return all(find_spec(module) for module in extra.modules)
