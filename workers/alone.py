"""The process for suspects: a worker with one slot, that claims nothing and runs what it is handed.

It is spoken to through a socket that is its standard input: an empty line goes out once it is up, a claim as a
line of JSON comes in, and the job's id goes out once its slot is free again. The end of that socket, which the
death of the worker at its other end brings too, stops it in order. See :mod:`workers.suspects`.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic

import orjson

from app.errors import Unavailable
from app.installation import Installation
from app.log import get_log
from app.queue.client import Claim, Claims
from app.queue.connect import OUTAGES
from workers.attempt import Attempt
from workers.families import Work
from workers.worker import Worker

log = get_log()


class LoneWorker(Worker):
    """Runs one handed-over job after the other, each with nothing beside it."""

    max_stubborn = 0  # what goes on here would be beside the next job

    def __init__(
        self,
        installation: Installation,
        channel: socket.socket,
        *,
        functions: Mapping[str, Work],
        queues: Sequence[str],
        handle_signals: bool = True,
    ) -> None:
        super().__init__(installation, functions=functions, queues=queues, max_jobs=1, handle_signals=handle_signals)
        self.queues = ()  # it consumes none of them
        self._channel = channel
        self._handed_over: deque[Claim] = deque()
        self._writer: asyncio.StreamWriter | None = None

    async def main(self) -> None:
        """Serve until the worker hangs up; answer it to the end."""
        try:
            await super().main()
        finally:
            if self._writer is not None:
                self._writer.close()

    def _helpers(self) -> dict[str, Callable[[], Awaitable[None]]]:
        needed = ("control", "limits", "rows", "heartbeat")
        every = super()._helpers()
        return {name: every[name] for name in needed} | {"hand-over": self._listen_to_worker}

    async def _serve(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            if self._handed_over and not self._attempts:
                await self._begin(self._handed_over.popleft())
            await self._wake.wait()

    async def _begin(self, claim: Claim) -> None:
        asked_at = monotonic()
        self._keeper.hold(claim.id, claim.queue_key, claim.token, asked_at=asked_at)
        try:
            now = await self._house.queue.now()
            claims = Claims(now=now, asked_at=asked_at, claims=[claim], next_due=None, has_more=False)
            started = await self._house.lifecycle.start(claims, worker_id=self.id)
        except (Unavailable, *OUTAGES) as error:
            log.warning("suspect_not_started", job_id=claim.id, reason=str(error))
            started = []
        for job in started:
            self._launch(job)
        if claim.id not in self._attempts:
            self._keeper.drop(claim.id, claim.token)
            self._answer(claim.id)

    def _free(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.job.id) is attempt:
            self._answer(attempt.job.id)
        super()._free(attempt)
        self._wake.set()

    def _answer(self, job_id: str) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(job_id.encode() + b"\n")

    async def _listen_to_worker(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._channel)
        self._writer.write(b"\n")
        try:
            async for line in reader:
                self._handed_over.append(Claim(**orjson.loads(line)))
                self._wake.set()
        except ConnectionError:
            log.info("worker_hung_up")
        self.stop()


def channel_on_stdin() -> socket.socket:
    """Take the socket off standard input, so that no child process keeps it open after this process."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return channel
