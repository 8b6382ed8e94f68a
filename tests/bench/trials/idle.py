"""Idle: what a worker with nothing to do costs in CPU and Redis commands."""

import asyncio
import time

import psutil
from redis.asyncio import Redis

from tests.bench.trials.house import NOOP, Terms, fill, open_house, process

_SETTLE_S = 3.0


async def run(terms: Terms) -> dict[str, float]:
    """Watch an idle worker process for ``seconds``."""
    async with open_house(terms) as house, process(terms, "serving") as worker:
        await fill(house, NOOP, 100)
        await asyncio.sleep(_SETTLE_S)  # what follows the start and the last job
        watched, redis = psutil.Process(worker.pid), Redis.from_url(terms.redis_url)
        before, commands, spent = time.perf_counter(), await _commands(redis), _cpu(watched)
        await asyncio.sleep(terms.seconds)
        seconds = time.perf_counter() - before
        commands = await _commands(redis) - commands - 1  # the first of the two looks
        figures = {"cpu_percent": 100 * (_cpu(watched) - spent) / seconds, "commands_s": commands / seconds}
        await redis.aclose()
        return figures


async def _commands(redis: Redis) -> int:
    """Count calls; what a script calls inside counts too, so only those of clients are summed."""
    total: int = (await redis.info("stats"))["total_commands_processed"]
    return total


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
