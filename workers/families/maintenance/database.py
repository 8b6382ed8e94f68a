"""The work of ``maintenance.maintain_database``: one step after the other, timed, one such job at a time."""

from time import monotonic

from app.history.turns import sole_turn
from app.history.upkeep import measure, operations_of, perform
from app.jobs import maintenance
from app.jobs.maintenance import MaintainDatabaseParams, MaintainDatabaseResult, PerformedOperation
from workers.context import Context
from workers.families import work

TURN = "upkeep"


@work(maintenance.maintain_database)
async def maintain_database(ctx: Context, params: MaintainDatabaseParams) -> MaintainDatabaseResult:
    """Do what the level asks for; every step may be repeated. Raise Conflict while another such job runs."""
    database = ctx.installation.database
    operations, performed = operations_of(database.dialect, params.maintenance_level), []
    async with sole_turn(database, TURN):
        before = await measure(database)
        for done, operation in enumerate(operations):
            await ctx.progress(100 * done / len(operations), operation.value, stage="upkeep")
            started = monotonic()
            detail = await perform(database, operation)
            duration_s = round(monotonic() - started, 3)
            performed.append(PerformedOperation(operation=operation, duration_s=duration_s, detail=detail))
        after = await measure(database)
    return MaintainDatabaseResult(
        maintenance_level=params.maintenance_level,
        dialect=database.dialect,
        operations=tuple(performed),
        tables=after.tables,
        indexes=after.indexes,
        bytes_before=before.size,
        bytes_after=after.size,
        bytes_freed=before.size - after.size,
        maintenance_timestamp=ctx.now,
    )
