"""The work of ``system.echo`` and ``system.flaky``: for trying the service out, and for its tests."""

from app.jobs import system
from app.jobs.system import EchoParams, EchoResult, FlakyParams, FlakyResult
from workers.context import Context
from workers.families import work


@work(system.echo)
async def echo(ctx: Context, params: EchoParams) -> EchoResult:
    """Wait in steps with progress, then give the payload back."""
    for step in range(1, params.steps + 1):
        await ctx.sleep(params.wait_seconds / params.steps)
        await ctx.progress(100 * step / params.steps, f"Step {step} of {params.steps}", stage="waiting")
    return EchoResult(waited_seconds=params.wait_seconds, payload=params.payload, attempt=ctx.attempt)


@work(system.flaky)
async def flaky(ctx: Context, params: FlakyParams) -> FlakyResult:
    """Fail as often as asked, then succeed."""
    if ctx.attempt <= params.fail_times:
        raise RuntimeError(f"Attempt {ctx.attempt} fails on purpose, as asked; {params.fail_times} will.")
    return FlakyResult(attempt=ctx.attempt)
