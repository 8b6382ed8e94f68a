"""The work of ``chaos.near`` and ``chaos.far``; found beside ``workers.families`` like the contract."""

import os
import time
from pathlib import Path

from tests.chaos.ledger import ENVIRONMENT, write_entry
from tests.chaos.trial import StepParams, StepResult, far, near
from workers.context import Context
from workers.families import work


async def _step(ctx: Context, params: StepParams) -> StepResult:
    ledger, who = Path(os.environ[ENVIRONMENT]), {"job_id": ctx.job_id, "attempt": ctx.attempt, "pid": os.getpid()}
    write_entry(ledger, "begin", **who, fence=ctx.fencing_token, claim=ctx._job.claim)
    try:
        if params.block_s:
            time.sleep(params.block_s)  # noqa: ASYNC251  # on purpose: the loop hangs, the GIL is free
        if wait_s := params.wait_s or (params.first_wait_s if ctx.attempt == 1 else 0.0):
            await ctx.sleep(wait_s)
        if ctx.attempt <= params.fail_times:
            raise RuntimeError(f"Attempt {ctx.attempt} fails on purpose.")
    finally:
        write_entry(ledger, "end", **who)
    return StepResult(mark=params.mark, attempt=ctx.attempt)


@work(near)
async def step_near(ctx: Context, params: StepParams) -> StepResult:
    """Take a step of the near queue."""
    return await _step(ctx, params)


@work(far)
async def step_far(ctx: Context, params: StepParams) -> StepResult:
    """Take a step of the far queue."""
    return await _step(ctx, params)
