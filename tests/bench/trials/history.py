"""History: status, list and stats over HTTP, and submit and drain, with ``rows`` ended jobs in the table."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta

from app.clock import iso, utc_now
from app.history.reader import JobFilter
from app.installation import Installation
from tests.bench.trials import drain
from tests.bench.trials.house import NOOP, Terms, fill, open_house, percentile, worker_in
from tests.bench.trials.wire import api, load, request, times

_LOOKS = 300
_CHUNK = 50_000
_SUBMIT = request("POST", "/api/tasks/system/echo", b'{"parameters": {}}')


async def run(terms: Terms) -> dict[str, float]:
    """Fill the history, look at it, and work on it."""
    async with open_house(terms) as house:
        await fill(house, NOOP, 1)
        await worker_in(house, slots=1, burst=True).async_run()
        if house.database.file:
            _fill_history(str(house.database.file), terms.rows)
        figures = await _looks(house, terms)
    rate = await drain.run(terms)
    return figures | {"jobs_s": rate["jobs_s"]}


async def _looks(house: Installation, terms: Terms) -> dict[str, float]:
    (known,) = (await house.reader.page(JobFilter(), limit=1)).jobs
    async with api(terms.settings()) as (port, _):
        looks = {
            "status": f"/api/tasks/{known.id}",
            "list": "/api/tasks?status=completed&limit=20",
            "stats": "/api/tasks/queues/stats",
        }
        figures = {}
        for name, path in looks.items():
            whole = request("GET", path)
            await times(port, [whole] * 20)
            figures[f"{name}_p99_ms"] = percentile(await times(port, [whole] * _LOOKS), 0.99)
        await load(port, _SUBMIT, requests=300, lines=64)
        figures["submits_s"] = await load(port, _SUBMIT, requests=max(1000, terms.jobs // 4), lines=64)
        return figures


def _fill_history(path: str, rows: int) -> None:
    """Copy the one job that ran, ``rows`` times, a second apart, up to an hour ago."""
    with sqlite3.connect(path) as connection:
        cursor = connection.execute("SELECT * FROM background_tasks LIMIT 1")
        names = [column[0] for column in cursor.description]
        template = dict(zip(names, cursor.fetchone(), strict=True))
        insert = f"INSERT INTO background_tasks VALUES ({','.join('?' * len(names))})"  # noqa: S608  # no values
        copies = _copies(template, rows, utc_now() - timedelta(hours=1))
        while chunk := [tuple(copy[name] for name in names) for copy, _ in zip(copies, range(_CHUNK), strict=False)]:
            connection.executemany(insert, chunk)
            connection.commit()
        connection.execute("ANALYZE")


def _copies(template: dict[str, object], rows: int, newest: datetime) -> Iterator[dict[str, object]]:
    for at in range(rows):
        moment = iso(newest - timedelta(seconds=(rows - at) / 4))
        stamps = dict.fromkeys(("created_at", "due_at", "started_at", "completed_at"), moment)
        high = int((newest.timestamp() - (rows - at) / 4) * 1000)
        job_id = f"{high >> 16:08x}-{high & 0xFFFF:04x}-7000-8000-{at:012x}"
        yield template | stamps | {"task_id": job_id}
