"""What goes wrong with SQL around the model: it is away for a while, or comes back older than Redis."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from app.clock import new_id
from app.errors import Unavailable
from app.history import tables
from app.history.writer import Settlement
from app.queue import keys
from tests.model.faults import FaultyHouse, Holder, Model
from tests.support.house import QUEUES, cut_off_from_sql, order

_TABLES = (tables.jobs, tables.attempts, tables.checkpoints, tables.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backup:
    """What the database held at one moment, and what was true then."""

    rows: dict[sa.Table, list[dict[str, Any]]]
    model: Model
    ids: list[str]


class SqlFaults(FaultyHouse):
    """A house whose database may be away, or go back to an older state."""

    backup: _Backup | None = None

    @contextmanager
    def sql_is_out(self) -> Iterator[None]:
        """Let every question and every write fail meanwhile."""
        with pytest.MonkeyPatch.context() as outage:
            cut_off_from_sql(self.house, outage)
            outage.setattr("app.lifecycle._SETTLE_PAUSE_S", 0.005)
            yield

    @rule()
    def submit_while_sql_is_out(self) -> None:
        """Nothing is accepted, and nothing is told to Redis."""
        before = self._do(self._known_to_redis())
        with self.sql_is_out(), pytest.raises(Unavailable):
            self._do(self.house.lifecycle.submit([order()]))
        assert self._do(self._known_to_redis()) == before, "a job was rung that no row knows"

    @rule(want=st.integers(1, 3))
    def start_while_sql_is_out(self, want: int) -> None:
        """Whatever was claimed is given back."""
        claims = self._do(self.house.queue.claim(QUEUES, want=want, token=new_id(), search=True))
        with self.sql_is_out(), pytest.raises(Unavailable):
            self._do(self.house.lifecycle.start(claims, worker_id="the-worker"))
        for claim in claims.claims:
            assert not self._do(self._is_held(claim.id)), "a claim was kept that started nothing"

    @precondition(lambda self: self.ids)
    @rule(at=st.integers(0, 9))
    def cancel_while_sql_is_out(self, at: int) -> None:
        before = self._row(self._pick(at))
        with self.sql_is_out(), pytest.raises(Unavailable):
            self._do(self.house.lifecycle.cancel(before.id))
        assert self._row(before.id) == before

    @rule()
    def remember_sql(self) -> None:
        rows = self._do(self._read_tables())
        self.backup = _Backup(rows=rows, model=deepcopy(self.model), ids=[*self.ids])

    @precondition(lambda self: self.backup is not None)
    @rule()
    def sql_goes_back(self) -> None:
        """The database is restored from a backup; Redis, and the workers, are ahead of it.

        Workers whose jobs it does not know any more die, for they would find nothing to settle.
        """
        assert self.backup is not None
        self._do(self._write_tables(self.backup.rows))
        self.model, self.ids = deepcopy(self.backup.model), [*self.backup.ids]
        self._all_unsound()
        for holder in [one for one in self.holders if one.job.id not in self.ids]:
            self.holders.remove(holder)
            self._do(self._let_lapse(holder.job.id))
        for holder in self.holders:
            holder.is_of_the_past = True

    async def settle_late(self, holder: Holder, settlement: Settlement) -> bool:
        """Settle while SQL is out, which waits until it is back."""
        with self.sql_is_out():
            settling = asyncio.ensure_future(self.house.lifecycle.settle(holder.job, settlement))
            await asyncio.wait([settling], timeout=0.02)
            assert not settling.done(), "a settle was given up while SQL was out"
        return await settling

    async def _is_held(self, job_id: str) -> bool:
        return bool(await self.house.redis.exists(keys.holder(job_id)))

    async def _known_to_redis(self) -> set[bytes]:
        return {name for name in await self.house.redis.keys("*") if name.startswith((b"arq:job:", b"arq:queue:"))}

    async def _read_tables(self) -> dict[sa.Table, list[dict[str, Any]]]:
        async with self.house.database.read() as connection:
            return {
                table: [
                    dict(row)
                    for row in (await connection.execute(sa.select(*(c.label(c.key) for c in table.c)))).mappings()
                ]
                for table in _TABLES
            }

    async def _write_tables(self, held: dict[sa.Table, list[dict[str, Any]]]) -> None:
        async with self.house.database.write() as connection:
            for table, rows in held.items():
                await connection.execute(sa.delete(table))
                if rows:
                    await connection.execute(sa.insert(table), rows)
