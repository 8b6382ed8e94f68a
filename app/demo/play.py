"""The play: what happens in a demo, from the first process to the last. Imported by the CLI alone."""

import asyncio
import signal
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

from rich.console import Console

from app.client import Client
from app.clock import utc_now
from app.demo.acts import store_samples, work_on_samples
from app.demo.board import open_board
from app.demo.gallery import show_archive, show_debts, show_lessons, show_plan
from app.demo.next_steps import print_next_steps
from app.demo.report import Report, findings_table, summary_of
from app.demo.samples import DAYS, SCENARIOS
from app.demo.stage import Stage, open_stage
from app.errors import Misconfigured, ServiceError

READY_S = 30.0

_PAUSE_S = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about a demo."""

    seed: int
    stays: bool  # whether everything stays up until a signal
    data_dir: Path | None = None  # None is a temporary one
    report_file: Path | None = None


class Play:
    """One run of the demo. A signal arrives as a cancellation, never between two steps of the stage."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console
        self._exit_code: int | None = None

    def run(self) -> int:
        """Play, and return the exit code: 0 when all jobs completed, 1 when not, 128 + n if signal n came before."""
        try:
            asyncio.run(self._play())
        except asyncio.CancelledError:
            self._console.print("Stopped.")  # all is down, and nobody is left to pass the cancellation on to
        return self._exit_code or 0

    async def _play(self) -> None:
        play = cast("asyncio.Task[None]", asyncio.current_task())
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._cut_short, number, play)
        self._check_report_file()
        with open_stage(self._options.data_dir) as stage:
            self._introduce(stage)
            async with stage.watched(), Client(stage.address, stage.admin_key) as client:
                await _wait_until_ready(client)
                report = await self._perform(client)
                self._exit_code = 0 if report.findings.is_complete else 1
                self._show(report, stage)
                if self._options.stays:
                    await asyncio.Event().wait()  # until a signal

    def _cut_short(self, number: signal.Signals, play: "asyncio.Task[None]") -> None:
        if self._exit_code is None:
            self._exit_code = 128 + number
        play.cancel()

    def _check_report_file(self) -> None:
        file = self._options.report_file
        if file is not None:
            try:
                file.touch()
            except OSError as error:
                raise Misconfigured(f"The report cannot be written: {error}.") from error

    def _introduce(self, stage: Stage) -> None:
        self._say(f"Redis is {stage.redis.description}, at {stage.redis.url}.")
        self._say(f"The API starts at {stage.address}, with one worker beside it; both log into {stage.directory}.")

    async def _perform(self, client: Client) -> Report:
        seed, last_day = self._options.seed, utc_now().date() - timedelta(days=1)
        stored = await store_samples(client, seed=seed, last_day=last_day)
        counts = [f"{count:,} {kind}" for kind, count in stored.items()]
        self._say(
            f"Stored {', '.join(counts[:-1])} and {counts[-1]} of {len(SCENARIOS)} sample users: "
            f"sample data of {DAYS} days up to {last_day}, made from seed {seed}."
        )
        started = time.monotonic()
        with open_board(self._console) as board:
            findings = await work_on_samples(client, board)
        self._say(
            f"{len(findings.tasks)} jobs ended {time.monotonic() - started:.1f} s after the first was submitted.\n"
        )
        return Report(seed=seed, last_day=last_day, stored=stored, findings=findings)

    def _show(self, report: Report, stage: Stage) -> None:
        findings = report.findings
        self._console.print(findings_table(report))
        self._say(summary_of(findings.aggregation))
        show_plan(self._console, findings.plan)
        show_debts(self._console, findings.debts)
        show_lessons(self._console, findings.lessons)
        show_archive(self._console, findings.archiving, stage.archives)
        if self._options.report_file is not None:
            self._options.report_file.write_text(report.model_dump_json(indent=2) + "\n")
        is_kept = self._options.data_dir is not None
        print_next_steps(self._console, stage, stays=self._options.stays, is_kept=is_kept)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


async def _wait_until_ready(client: Client) -> None:
    try:
        async with asyncio.timeout(READY_S):
            while True:
                if await client.is_ready():
                    return
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        raise ServiceError(f"The API was not ready within {READY_S:.0f} seconds.") from error
