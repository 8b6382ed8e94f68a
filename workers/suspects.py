"""Suspects: jobs that were running when a worker died, twice. They run alone, in a process that holds nothing else.

Such a job may have been what killed its workers, or only a neighbour of it. The worker that claims one does
not start it: it hands the claim to a process of its own (:mod:`workers.alone`), which takes one job after
the other. The process that dies takes one job along, and that job is convicted (:mod:`workers.verdict`).

A process for suspects is told to leave by the end of the socket that it is spoken to through, also when the
worker is killed: it then stops in order, so that what it ran is released and not counted as interrupted.
"""

import asyncio
import socket
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import orjson

from app.errors import Unavailable
from app.history.reader import Reader
from app.lifecycle import Lifecycle
from app.log import get_log
from app.queue.client import Claim
from workers.lease import LeaseKeeper
from workers.verdict import convict

log = get_log()

_PROCESSES = 2  # at a time: a suspect that runs for an hour must not hold up the others
_LINE = 20  # suspects held here at a time; other workers have room for more
_PATIENCE_S = 5.0  # what waited for so long, here, on processes that are up is offered to other workers
_IDLE_S = 30.0  # until a process for suspects without any is let go: one that was put off comes back after a lease
_LOOK_S = 0.05


class Suspects:
    """The suspects of one worker. ``take`` them, ``run`` for ever; at the end ``hang_up`` and wait until ``gone``."""

    def __init__(self, command: Sequence[str], *, keeper: LeaseKeeper, lifecycle: Lifecycle, reader: Reader) -> None:
        self.held: set[str] = set()  # ids, waiting or handed over; their leases are renewed here
        self._command = list(command)
        self._keeper = keeper
        self._lifecycle = lifecycle
        self._reader = reader
        self._line: deque[tuple[float, Claim]] = deque()
        self._arrived = asyncio.Event()
        self._is_leaving = False
        self._starting = 0  # processes that are not up yet
        self._told: set[asyncio.StreamWriter] = set()  # one for each process that lives
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def take(self, claim: Claim) -> bool:
        """Take in a claimed suspect, whose lease is renewed already; return whether there was room for it."""
        if self._is_leaving or len(self._line) >= _LINE:
            return False
        self.held.add(claim.id)
        self._line.append((monotonic(), claim))
        self._arrived.set()
        return True

    async def run(self) -> None:
        """Hand suspects over, each to a process that has no other job."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._put_off())
            for _ in range(_PROCESSES):
                group.create_task(self._attend())

    def hang_up(self) -> None:
        """Hand nothing over any more, and tell the processes to stop: their jobs have the grace period."""
        self._is_leaving = True
        self._arrived.set()
        for writer in self._told:
            if writer.can_write_eof():
                writer.write_eof()

    async def gone(self, *, within_s: float) -> None:
        """Give back what waits, and wait until the processes have ended."""
        await self._give_back(waited_s=0)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_empty.wait()

    async def _attend(self) -> None:
        while (claim := await self._next(None)) is not None:
            try:
                await self._converse(claim)
            except OSError as error:  # the machine has no room for another process
                log.warning("suspect_process_not_started", job_id=claim.id, reason=str(error))
                self._drop(claim)
                await asyncio.sleep(_PATIENCE_S)

    async def _next(self, within_s: float | None) -> Claim | None:
        """Wait for the next in line; return None when none came in time, or when all is over."""
        try:
            async with asyncio.timeout(within_s):
                while not (self._line or self._is_leaving):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return None
        return None if self._is_leaving else self._line.popleft()[1]

    async def _converse(self, first: Claim) -> None:
        """Start a process, and give it one job after the other until it dies or none comes for a while."""
        process, channel = self._start()
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        self._told.add(writer)
        self._is_empty.clear()
        claim: Claim | None = first
        try:
            is_up = await self._comes_up(reader)
            if self._is_leaving:
                self._drop(first)
                await self._lifecycle.give_back([first])
                return
            while claim is not None:
                writer.write(orjson.dumps(claim._asdict()) + b"\n")
                has_ended = is_up and await _is_answered(reader)
                if not has_ended:
                    await self._judge(claim, process)  # while its lease is still renewed here
                self._drop(claim)
                if not has_ended:
                    break
                claim = await self._next(_IDLE_S)
        finally:
            writer.close()
            await _reap(process)
            self._told.discard(writer)
            if not self._told:
                self._is_empty.set()

    async def _comes_up(self, reader: asyncio.StreamReader) -> bool:
        """Wait for the first word of a process, which on a busy machine takes long; whoever waits here waits for it."""
        self._starting += 1
        try:
            return await _is_answered(reader)
        finally:
            self._starting -= 1
            self._line = deque((monotonic(), claim) for _, claim in self._line)

    async def _judge(self, claim: Claim, process: subprocess.Popen[bytes]) -> None:
        """Convict the job whose process died. One that was told to leave, or left in order, proves nothing.

        What is not convicted is found when its lease runs out, and whoever comes next acts by the row.
        """
        exit_code = await _reap(process)
        is_guilty = False
        try:
            if exit_code and not self._is_leaving:
                is_guilty = await convict(claim, self._reader, self._lifecycle, exit_code=exit_code)
        except Unavailable as error:
            log.warning("suspect_not_judged", job_id=claim.id, reason=str(error))
        log.warning("suspect_left_with_its_process", job_id=claim.id, pid=process.pid, is_guilty=is_guilty)

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        near, far = socket.socketpair()
        with far:
            try:
                process = subprocess.Popen(self._command, stdin=far.fileno(), process_group=0)
            except OSError:
                near.close()
                raise
        log.info("suspect_process_started", pid=process.pid)
        return process, near

    async def _put_off(self) -> None:
        while not self._is_leaving:
            await asyncio.sleep(_PATIENCE_S / 5)
            if not self._starting:
                await self._give_back(waited_s=_PATIENCE_S)

    async def _give_back(self, *, waited_s: float) -> None:
        late = [claim for came_at, claim in self._line if monotonic() - came_at >= waited_s]
        if late:
            self._line = deque(entry for entry in self._line if entry[1] not in late)
            for claim in late:
                self._drop(claim)
            await self._lifecycle.give_back(late)

    def _drop(self, claim: Claim) -> None:
        self.held.discard(claim.id)
        self._keeper.drop(claim.id, claim.token)


async def _reap(process: subprocess.Popen[bytes]) -> int:
    while (exit_code := process.poll()) is None:  # noqa: ASYNC110  # the end of a process sets no event
        await asyncio.sleep(_LOOK_S)
    return exit_code


async def _is_answered(reader: asyncio.StreamReader) -> bool:
    try:
        return bool(await reader.readline())
    except ConnectionError:
        return False
