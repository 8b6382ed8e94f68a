"""``catalogue``: every job type there is."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from app.jobs.catalogue import Catalogue


def show_catalogue() -> None:
    """Show every job type: its kind, queue, priority, time limits, submit route and what it does.

    Example: `catalogue`
    """
    from app.cli.tables import print_table  # noqa: PLC0415
    from app.jobs.catalogue import load_catalogue  # noqa: PLC0415

    print_table(_table(load_catalogue()))


def _table(catalogue: "Catalogue") -> "Table":
    from rich.table import Column, Table  # noqa: PLC0415

    from app.cli.tables import whole  # noqa: PLC0415

    route = Column("POST /api/tasks/…", overflow="fold")
    table = Table(whole("Kind"), whole("Queue"), "Priority", "Limit, soft/hard", "Retries", route, "What it does")
    for family in catalogue.families.values():
        table.add_section()
        for job_type in family.job_types:
            table.add_row(
                job_type.kind,
                job_type.queue,
                str(job_type.priority),
                f"{job_type.limits.soft_s:g}/{job_type.limits.hard_s:g} s",
                str(job_type.retry.max_retries),
                job_type.route,
                job_type.summary + (" (Administrators only.)" if job_type.is_admin_only else ""),
            )
    return table
