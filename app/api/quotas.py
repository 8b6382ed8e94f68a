"""How many tasks of one caller may wait at a time."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.api.auth import Caller
from app.errors import QuotaExceeded
from app.group import GroupCommit
from app.history.reader import Reader


class WaitingQuota:
    """Room for tasks that wait. One instance a process.

    The rows are counted for every submit, no further than to the quota, by an index of what waits; submits that
    come while others are counted for are counted for together. What this process is about to commit counts too; of
    what others are, each may slip one submit past the quota. Administrators have no quota.
    """

    def __init__(self, reader: Reader, most: int) -> None:
        self._reader = reader
        self._most = most  # 0 is no quota
        self._coming: Counter[str] = Counter()
        self._counts: GroupCommit[str, int] = GroupCommit(self._count)

    def binds(self, caller: Caller) -> bool:
        """Whether a caller has a quota at all."""
        return self._most > 0 and not caller.is_admin

    @asynccontextmanager
    async def held(self, caller: Caller, count: int) -> AsyncIterator[None]:
        """Hold room for so many more tasks while they are being accepted; raise QuotaExceeded where there is none."""
        owner = caller.user_id
        waiting = await self._counts(owner)
        if waiting + self._coming[owner] + count > self._most:
            raise QuotaExceeded(
                f"{waiting:,} tasks of yours wait; with {count:,} more they would exceed the quota "
                f"MAX_WAITING_PER_USER, {self._most:,}. Submit again once some have started.",
                quota="MAX_WAITING_PER_USER",
            )
        self._coming[owner] += count
        try:
            yield
        finally:
            self._coming[owner] -= count
            if self._coming[owner] <= 0:
                del self._coming[owner]

    async def _count(self, owners: Sequence[str]) -> list[int]:
        waiting = await self._reader.count_waiting(dict.fromkeys(owners), at_most=self._most)
        return [waiting[owner] for owner in owners]
