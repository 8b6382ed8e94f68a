"""CPU-bound work in a child process: one per call, with progress, checkpoints, limits and a sure end.

The children come from a fork server, so that a child is there in milliseconds and inherits neither threads
nor connections of the worker. Worker and child talk through one socket pair, by multiprocessing's own
serialiser: it never leaves the two processes, and nothing of it is ever stored.
"""

import asyncio
import fcntl
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import psutil
from pydantic import JsonValue

from app.errors import MemoryExceeded, ProcessDied, ResultInvalid, SoftTimeLimitExceeded

NICENESS = 10  # the worker's loop, and the rest of the machine, come first
_LOOK_S = 0.1  # how often a child's memory is measured, and a stop noticed
_GRACE_S = 1.0  # between SIGTERM and SIGKILL
_REPORT_EVERY_S = 0.05  # what a child reports faster is thinned out; its last word is not
_MB = 1 << 20
_MAX_WORD_MB = 64  # in one message of a child: the worker must hold it, and has no memory cap of its own
_FIRST_TO_GO = "500"  # of 1000: whom Linux ends when the machine's memory is used up
_PRELOADED = ["workers.families"]  # what every child needs; a family's libraries are left to its own children
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a slot is one core

_FORKSERVER = get_context("forkserver")
# multiprocessing polls all children of a process whenever it starts one, and two threads that poll the same
# child lose its exit code.
_BOOKKEEPING = threading.Lock()


# --- what a child says -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """The work got further."""

    percent: float
    message: str
    stage: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """The next attempt may go on from here."""

    state: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLimitTold:
    """The work was told of its soft limit, which is told once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The work returned."""

    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The work raised, or its process died."""

    error: BaseException


Word = Progressed | Checkpointed | SoftLimitTold | Returned | Raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one call of a function in a child is bound by."""

    memory_mb: int  # resident; a child above it is killed
    soft_limit_at: float | None  # by the monotonic clock, which all processes of a machine share
    restored: JsonValue = None  # the checkpoint to go on from


class Report:
    """How a function in a child says where it stands: its first argument.

    Every method raises :class:`SoftTimeLimitExceeded` once after the soft limit.
    """

    def __init__(self, channel: Connection, terms: Terms) -> None:
        self.restored = terms.restored  # the state of the last checkpoint of an earlier attempt, or None
        self._channel = channel
        self._soft_limit_at = terms.soft_limit_at
        self._sent_at = float("-inf")
        self._held_back: Progressed | None = None

    @property
    def time_left_s(self) -> float:
        """Seconds until the soft limit, for work that cannot report on its way; infinite where none is to come."""
        return float("inf") if self._soft_limit_at is None else max(0.0, self._soft_limit_at - time.monotonic())

    def progress(self, percent: float, message: str = "", *, stage: str | None = None) -> None:
        """Report how far the work is, 0–100. Cheap: what comes too fast is thinned out."""
        self._held_back = Progressed(percent=percent, message=message, stage=stage)
        if time.monotonic() - self._sent_at >= _REPORT_EVERY_S:
            self.flush()
        self._breathe()

    def checkpoint(self, state: JsonValue) -> None:
        """Have this state stored for the next attempt; see :meth:`workers.context.Context.checkpoint`."""
        self._channel.send(Checkpointed(state=state))
        self._breathe()

    def flush(self) -> None:
        """Send the progress that was held back, if any."""
        if self._held_back is not None:
            self._channel.send(self._held_back)
            self._held_back, self._sent_at = None, time.monotonic()

    def _breathe(self) -> None:
        if self._soft_limit_at is not None and time.monotonic() >= self._soft_limit_at:
            self._soft_limit_at = None
            self._channel.send(SoftLimitTold())
            raise SoftTimeLimitExceeded


# --- the worker's side -------------------------------------------------------------------------


class Child:
    """One call of a function in a process of its own. Start it, take words from ``inbox``, and always stop it.

    The last word is :class:`Returned` or :class:`Raised`. A thread attends to the child, so that neither a
    large answer nor a slow end keeps the event loop.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], terms: Terms) -> None:
        self.inbox: asyncio.Queue[Word] = asyncio.Queue()
        self._call = (function, args, terms)
        self._memory_limit = terms.memory_mb * _MB
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._is_unwanted = False
        self._channel, self._far_end = _FORKSERVER.Pipe()
        self._process = _FORKSERVER.Process(target=_live, args=(self._far_end,), daemon=True)

    def start(self) -> None:
        """Start it; what goes wrong with that is its last word."""
        threading.Thread(target=self._attend, name="child-process", daemon=True).start()

    async def stop(self) -> None:
        """End the child if it still runs, by SIGTERM and after a second SIGKILL, and wait until it is gone."""
        self._is_unwanted = True
        await self._gone.wait()

    def _attend(self) -> None:
        try:
            self._tell(self._listen())
        except Exception as error:  # it could not be started, or what it sent could not be read
            self._tell(Raised(error=error))
        finally:
            self._end()
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(self._gone.set)

    def _listen(self) -> Word:
        """Start the child and pass its words on; return the last one."""
        with _BOOKKEEPING:
            _FORKSERVER.set_forkserver_preload(_PRELOADED)
            self._process.start()
        self._far_end.close()
        try:
            self._channel.send(self._call)
            while not self._is_unwanted:
                if self._channel.poll(_LOOK_S):
                    word = self._receive()
                    if isinstance(word, Returned | Raised):
                        return word
                    self._tell(word)
                if self._is_too_large():
                    return Raised(error=self._memory_error())
        except (EOFError, ConnectionError):
            pass
        return Raised(error=self._death())

    def _receive(self) -> Word:
        try:
            word: Word = ForkingPickler.loads(self._channel.recv_bytes(_MAX_WORD_MB * _MB))
        except ConnectionError:
            raise
        except OSError as error:  # multiprocessing has no better word for a message that is too long
            raise ResultInvalid(f"The job's process sent more than {_MAX_WORD_MB} MB at once.") from error
        return word

    def _tell(self, word: Word) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.inbox.put_nowait, word)

    def _is_too_large(self) -> bool:
        with suppress(psutil.NoSuchProcess):  # its last word may still be in the channel
            rss: int = psutil.Process(self._process.pid).memory_info().rss
            return rss > self._memory_limit
        return False

    def _death(self) -> ProcessDied:
        wait([self._process.sentinel], _LOOK_S if self._is_unwanted else _GRACE_S)
        with _BOOKKEEPING:
            code = self._process.exitcode
        if code is None or code >= 0:
            return ProcessDied(f"The job's process ended early, with exit code {code}.", exit_code=code)
        return ProcessDied(f"The job's process was killed by {signal.Signals(-code).name}.", exit_code=code)

    def _memory_error(self) -> MemoryExceeded:
        megabytes = self._memory_limit // _MB
        return MemoryExceeded(f"The job's process used more than its {megabytes} MB (WORKER_CHILD_MEMORY_MB).")

    def _end(self) -> None:
        self._channel.close()
        pid = self._process.pid
        if pid is None:
            self._far_end.close()
            return
        for verb, patience in ((self._process.terminate, _GRACE_S), (self._process.kill, None)):
            if wait([self._process.sentinel], 0):
                break
            with _BOOKKEEPING:
                verb()
            wait([self._process.sentinel], patience)
        with suppress(ProcessLookupError, PermissionError):  # what it started belongs to its group
            os.killpg(pid, signal.SIGKILL)
        with _BOOKKEEPING:
            self._process.join()
            self._process.close()


# --- the child's side --------------------------------------------------------------------------


def _live(channel: Connection) -> None:
    """Be the child: take the call, make it, and say how it ended."""
    _die_with_worker()
    os.setpgrp()  # Ctrl-C on a terminal reaches the worker alone, which stops its children in its own order
    os.nice(NICENESS)
    with suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        # The call comes this way, and not with the start, so that its imports find the environment as it is now.
        function, args, terms = channel.recv()
        report = Report(channel, terms)
        value = function(report, *args)
        report.flush()
        channel.send(Returned(value=value))
    except MemoryError:
        channel.send(Raised(error=MemoryExceeded()))
    except BaseException as error:  # whatever it is, the worker judges it
        channel.send(Raised(error=_portable(error)))


def _die_with_worker() -> None:
    """Have the kernel kill this process when the worker dies, whatever killed it and whatever runs here.

    The child's parent is the fork server, so that the parent-death signal of :mod:`app.processes` would
    watch the wrong process: the server outlives a killed worker for as long as a child lives. What is watched
    is the pipe whose other end the worker holds alone: Linux sends its owner a signal of choice once that
    closes. Other systems have nothing of the kind.
    """
    worker = parent_process()
    if worker is None or not hasattr(fcntl, "F_SETSIG"):
        return
    pipe = int(worker.sentinel)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([pipe], 0):  # it died before the lines above, which came too late
        os.kill(os.getpid(), signal.SIGKILL)


def _portable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note, or what stands for one that cannot be sent."""
    told = "In the job's process:\n" + "".join(traceback.format_exception(error))
    try:
        portable = ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # an error class may refuse in any way
        portable = ProcessDied(f"{type(error).__name__}: {error}")
    portable.add_note(told)
    result: BaseException = portable
    return result
