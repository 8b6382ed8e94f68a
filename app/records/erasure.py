"""Deleting for good: records and, with them, the files that they alone name. Imported by the API alone.

Files go before the rows that name them: whoever is interrupted calls again, and nothing is left that no row names.
"""

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.records.record import AnyRecordType, Record
from app.records.store import BATCH, Records


async def erase_one(
    records: Records, record_type: AnyRecordType, record_id: str, *, files: Path, user_id: str | None = None
) -> bool:
    """Delete one record, and the file inside ``files`` that goes with it; False if there is none of the user's."""
    found = await records.get(record_type, record_id, user_id=user_id)
    return found is not None and await _erase(records, record_type, [found], files) > 0


async def erase_user(records: Records, record_type: AnyRecordType, user_id: str, *, files: Path) -> int:
    """Delete all records of a kind that are a user's, and their files; return how many there were. Repeatable."""
    if record_type.file_of is None or record_type.user_field is None:
        return await records.delete_user(record_type, user_id)
    erased = 0
    while page := (await records.page(record_type, user_id=user_id, limit=BATCH)).records:
        erased += await _erase(records, record_type, page, files)
    return erased


async def _erase(records: Records, record_type: AnyRecordType, found: Sequence[Record], files: Path) -> int:
    if record_type.file_of is not None:
        names = [name for name in map(record_type.file_of, found) if name is not None]
        await asyncio.to_thread(_remove, [files / name for name in names])
    return await records.delete(record_type, [getattr(record, record_type.id_field) for record in found])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
