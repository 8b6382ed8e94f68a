"""Every Redis key of the service, as a named function or constant. No other file spells a key.

Lua scripts get the constants as locals of the same name (``app/queue/scripts.py``).
"""

QUEUE = "arq:queue:"  # + queue:priority → sorted set of job ids, score = due time in ms
BODY = "arq:job:"  # + id → arq's job definition as JSON
HOLDER = "arq:in-progress:"  # + id → token of the claim that holds it; expires with the lease
RESULT = "arq:result:"  # + id → arq's job result as JSON
BELL = "jobs:bell:"  # + queue, or worker id → list that idle workers block on
PROGRESS = "jobs:progress:"  # + id → last progress as JSON
CACHE = "jobs:cache:"  # + name → what can be computed again; nothing else may begin like this
WORKER = "jobs:worker:"  # + worker id → heartbeat as JSON
RATE = (
    "jobs:rate:"  # + caller, or login:digest → when what it has taken of its rate is paid, µs of Redis time; fades then
)
ASIDE = "jobs:aside:"  # + key → what stood there and was of no use; nobody reads it, and it fades

LEASES = "arq:leases"  # sorted set: id → deadline in ms of Redis time
CLAIMS = "jobs:claims"  # hash: id → "queue key|token", kept until acknowledged
BUSY = "jobs:busy"  # set of queue keys that are not empty
PAUSED = "jobs:paused"  # set of queue names
ABORTS = "arq:abort"  # sorted set of ids that arq's Job.abort() asked to stop
EVENTS = "jobs:events"  # stream
CONTROL = "jobs:control"  # publish/subscribe channel: cancel, drain
WORKERS = "jobs:workers"  # sorted set: worker id → when it was last seen, ms
TOTALS = "jobs:totals"  # hash: counters for /metrics
QUARANTINE = "jobs:quarantine"  # hash: id or key → "reason|the beginning of what was found"
SWEEPER = "jobs:sweeper"  # lock: which worker sweeps
EPOCH = "jobs:epoch"  # hash: installation, counter, run_id of the server; walk while a rebuild goes on
CLOCK = "jobs:clock"  # when a worker was last heard of, ms of Redis time

RUNNING_OFFSET = 4_000_000_000_000_000  # added to the score of a running job; sums stay exact in a double
MAX_COST = 1000  # units of its rate that one request may cost a caller
PRIORITIES = range(1, 11)
FIXED = {  # what each of our own keys must be
    LEASES: "zset",
    CLAIMS: "hash",
    BUSY: "set",
    PAUSED: "set",
    ABORTS: "zset",
    EVENTS: "stream",
    WORKERS: "zset",
    TOTALS: "hash",
    QUARANTINE: "hash",
    SWEEPER: "string",
    EPOCH: "hash",
    CLOCK: "string",
}


def queue(name: str, priority: int) -> str:
    """The sorted set of one queue and priority."""
    return f"{QUEUE}{name}:{priority}"


def body(job_id: str) -> str:
    """The job's definition, for arq's tools."""
    return BODY + job_id


def holder(job_id: str) -> str:
    """Who holds the job."""
    return HOLDER + job_id


def result(job_id: str) -> str:
    """The job's result, for quick readers."""
    return RESULT + job_id


def bell(name: str) -> str:
    """The wake-up list of a queue, or of one worker."""
    return BELL + name


def progress(job_id: str) -> str:
    """The last progress of a running job."""
    return PROGRESS + job_id


def worker(worker_id: str) -> str:
    """The last heartbeat of a worker."""
    return WORKER + worker_id
