"""What goes wrong with SQL around the model: it is away for a while, or comes back older than Redis."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from app.history.epochs import read_epoch
from app.history.writer import Settlement
from app.jobs.status import LIVE
from app.queue import keys
from app.queue.epoch import Epochs
from tests.model.faults import LEASE, FaultyHouse, Holder, Model
from tests.support.house import QUEUES, cut_off_from_sql, note, order, reply
from workers.context import Context
from workers.sweep import Sweep

_QUESTIONS = 5  # that a rebuild of a page asks of the database
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
    def sql_is_out(self, *, after: int = 0) -> Iterator[None]:
        """Let every question and every write fail meanwhile, after the first few."""
        with pytest.MonkeyPatch.context() as outage:
            cut_off_from_sql(self.house, outage, after=after)
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

    @precondition(lambda self: self.holders)
    @rule(at=st.integers(0, 9), state=st.integers(100, 199))
    def checkpoint_while_sql_is_out(self, at: int, state: int) -> None:
        """It costs the checkpoint alone: the work goes on, and the last one that was stored stays."""
        job = self._holder(at).job
        kept = self._do(self.house.reader.checkpoint(job.id))
        context = Context(job, note.limits, self.house, lambda _progress: None)
        with self.sql_is_out():
            self._do(context.checkpoint(state))
        assert not context.has_checkpoint, "a checkpoint was thought to be stored"
        assert self._do(self.house.reader.checkpoint(job.id)) == kept

    @precondition(lambda self: self.ids)
    @rule(is_flushed=st.booleans())
    def sweep_while_sql_is_out(self, is_flushed: bool) -> None:
        """SQL goes out at each of a sweep's questions: no live job leaves Redis, and no walk cut short ends."""
        self._do(self._sweep_while_sql_is_out(is_flushed))

    async def _sweep_while_sql_is_out(self, is_flushed: bool) -> None:
        sweep, epochs = Sweep(self.house, worker_id="the-worker"), Epochs(self.house.redis, lease=LEASE)
        live = {row.id.encode() for row in (await self._rows()).values() if row.status in LIVE}
        name = (await read_epoch(self.house.database)).installation
        before = live & await self._entries()
        with self.sql_is_out(), suppress(Unavailable):
            await sweep.drop_ghosts()
        assert before <= await self._entries(), "a live job was taken out of Redis unseen"
        if is_flushed:
            await self._flush()
        await reply(self.house.redis.hdel(keys.EPOCH, "run_id"))  # so that a walk is due
        for answers in range(_QUESTIONS):
            with self.sql_is_out(after=answers), suppress(Unavailable):
                await sweep.rebuild()
            mark = await epochs.read(name)
            assert mark.run_id is None or live <= await self._entries(), "a walk that was cut short has ended"

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

    async def _entries(self) -> set[bytes]:
        """Return the members of every queue."""
        names = await self.house.redis.keys(keys.QUEUE + "*")
        return {member for name in names for member in await self.house.redis.zrange(name, 0, -1)}

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
