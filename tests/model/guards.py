"""The guards of the status machine and its protocol, each with the test that misses it.

One line a guard: what it guards, where it stands, and what the text becomes without it.
"""

from tests.model.mutation import Mutant

_WRITER = "app/history/writer.py"
_STATEMENTS = "app/history/statements.py"
_LUA = "app/queue/lua/{}.lua"


def _lua(script: str, guard: str, old: str, new: str = "") -> Mutant:
    return Mutant(guard=guard, file=_LUA.format(script), old=old, new=new)


def _sql(guard: str, old: str, new: str = "") -> Mutant:
    return Mutant(guard=guard, file=_WRITER, old=old, new=new)


def _batch(guard: str, old: str, new: str = "") -> Mutant:
    return Mutant(guard=guard, file=_STATEMENTS, old=old, new=new)


GUARDS = (
    # --- start ---
    _batch("a start needs its due time", "status = 'pending' AND due_at <= :now AND", "status = 'pending' AND"),
    _batch("a start needs a pending row, or its own or a dead claim", "claim IN (row_dead, row_claim)", "true"),
    _batch(
        "a start sent again counts once",
        "WHEN status = 'running' AND claim = row_claim THEN 0 ELSE 1",
        "WHEN false THEN 0 ELSE 1",
    ),
    _batch("a start takes over a dead claim", "claim IN (row_dead, row_claim)", "claim = row_claim"),
    _batch("a start counts the attempt", "THEN 0 ELSE 1 END", "THEN 0 ELSE 0 END"),
    _batch(
        "a start writes its claim",
        "status = 'running', claim = row_claim, worker_id",
        "status = 'running', claim = COALESCE(claim, row_claim), worker_id",
    ),
    # --- settle ---
    _batch(
        "a settle needs a running row",
        "task_id = row_id AND status = 'running' AND attempts",
        "task_id = row_id AND attempts",
    ),
    _batch("a settle needs its attempt and claim", ' AND attempts = row_attempts AND claim = row_claim"', '"'),
    _sql("a settle sent again has won", "set(connection.execute(self._sql.settled, values).scalars())", "set[str]()"),
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
        "jobs.c.id == job_id, jobs.c.status == Status.PENDING, priority=priority",
        "jobs.c.id == job_id, priority=priority",
    ),
    _sql(
        "a tick is submitted once",
        "insert.values(_insertable(job)).on_conflict_do_nothing().returning",
        'insert.values(_insertable(job) | {"tick_at": None}).on_conflict_do_nothing().returning',
    ),
)
