"""``python -m tests.chaos.scheduler SOCKET``: a scheduler of the real schedules, whose time is what the socket says.

For every moment that comes in, a line of ISO-8601, it submits what is due, and says so by the same line.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from app.clock import parse_iso
from app.installation import open_installation
from app.jobs.catalogue import load_catalogue
from app.jobs.schedules import SCHEDULES
from app.log import configure_logging
from app.settings import read_settings
from workers.cron import Ticker, cron_jobs

# The one that ticks every minute is five times the work of all others together, and would show nothing else.
TICKING = tuple(schedule for schedule in SCHEDULES if schedule.minute is not None)


async def main(path: Path) -> None:
    """Tick until the other end hangs up; begin as a worker does, by catching up."""
    settings, catalogue = read_settings(), load_catalogue()
    configure_logging("WARNING", settings.log_format)
    async with open_installation(settings, catalogue) as house:
        ticker, definitions = Ticker(TICKING, catalogue, house.lifecycle), cron_jobs(TICKING)
        reader, writer = await asyncio.open_unix_connection(path)
        has_caught_up = False
        async for line in reader:
            now = parse_iso(line.decode().strip())
            if not has_caught_up:
                await ticker.catch_up(house.reader, now)
                has_caught_up = True
            await ticker.run(definitions, now)
            writer.write(line)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
