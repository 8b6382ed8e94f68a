"""The guards of the status machine and its protocol, each with the test that misses it.

One line a guard: what it guards, where it stands, and what the text becomes without it.
"""

from tests.model.mutation import Mutant

_WRITER = "app/history/writer.py"
_LUA = "app/queue/lua/{}.lua"


def _lua(script: str, guard: str, old: str, new: str = "") -> Mutant:
    return Mutant(guard=guard, file=_LUA.format(script), old=old, new=new)


def _sql(guard: str, old: str, new: str = "") -> Mutant:
    return Mutant(guard=guard, file=_WRITER, old=old, new=new)


GUARDS = (
    # --- start ---
    _sql("a start needs its due time", "status = 'pending' AND due_at <= :now AND", "status = 'pending' AND"),
    _sql("a start needs a pending row, or its own or a dead claim", "claim IN (row_dead, row_claim)", "true"),
    _sql(
        "a start sent again counts once",
        "WHEN status = 'running' AND claim = row_claim THEN 0 ELSE 1",
        "WHEN false THEN 0 ELSE 1",
    ),
    _sql("a start takes over a dead claim", "claim IN (row_dead, row_claim)", "claim = row_claim"),
    _sql("a start counts the attempt", "THEN 0 ELSE 1 END", "THEN 0 ELSE 0 END"),
    _sql(
        "a start writes its claim",
        "status = 'running', claim = row_claim, worker_id",
        "status = 'running', claim = COALESCE(claim, row_claim), worker_id",
    ),
    # --- settle ---
    _sql(
        "a settle needs a running row",
        "task_id = row_id AND status = 'running' AND attempts",
        "task_id = row_id AND attempts",
    ),
    _sql("a settle needs its attempt and claim", ' AND attempts = row_attempts AND claim = row_claim"', '"'),
    _sql("a settle sent again has won", "won |= set(connection.execute(self._sql.settled, values).scalars())", "pass"),
    # --- checkpoint ---
    _sql(
        "a checkpoint needs a running row",
        "jobs.c.status == Status.RUNNING, jobs.c.attempts == job.attempts]",
        "jobs.c.attempts == job.attempts]",
    ),
    _sql("a checkpoint needs its claim", ".where(*fence, jobs.c.claim == job.claim)", ".where(*fence)"),
    # --- the others ---
    _sql(
        "a cancel needs a live row",
        "jobs.c.id == job_id, jobs.c.status.in_(spared), status=Status.CANCELLED",
        "jobs.c.id == job_id, status=Status.CANCELLED",
    ),
    _sql(
        "a cancel spares a running row if told to",
        "if include_running else (Status.PENDING,)",
        "if True else (Status.PENDING,)",
    ),
    _sql(
        "a priority changes only while waiting",
        "is_waiting = (jobs.c.id == job_id, jobs.c.status == Status.PENDING)",
        "is_waiting = (jobs.c.id == job_id,)",
    ),
    _sql(
        "a tick is submitted once",
        "insert.values(insertable(job)).on_conflict_do_nothing().returning",
        'insert.values(insertable(job) | {"tick_at": None}).on_conflict_do_nothing().returning',
    ),
)
