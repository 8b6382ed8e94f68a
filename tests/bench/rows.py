"""The rows of the table: what is run, how often, beside whom, and what is aimed at.

What is compared runs in turns, so that it meets the same noise; ratios are taken round by round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.figure import Figure, Rounds
from tests.bench.stage import Outcome, Stage

PEERS = ("arq_tuned", "arq_default", "saq", "taskiq", "streaq", "dramatiq", "celery", "rq")
_SLOW = {"arq_default": 10, "celery": 4, "rq": 20}  # a slow peer gets so many times fewer jobs

Trial = Callable[[], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done: all of it, or a look of two minutes."""

    jobs: int = 20_000
    rounds: int = 3
    backlog: int = 1_000_000
    history: int = 5_000_000
    memory: int = 100_000
    seconds: int = 10  # of following, twice
    peers: tuple[str, ...] = PEERS
    has_postgres: bool = True


QUICK = Size(
    jobs=3_000, rounds=1, backlog=30_000, history=100_000, memory=10_000, peers=("arq_tuned", "saq"), seconds=3
)


def in_turns(rounds: int, **trials: Trial) -> dict[str, dict[str, Rounds]]:
    """Run the trials one after the other, ``rounds`` times; return each measured value by trial and name."""
    seen: dict[str, list[Outcome]] = {name: [] for name in trials}
    for _ in range(rounds):
        for name, trial in trials.items():
            seen[name].append(trial())
    return {
        name: {key: Rounds([outcome[key] for outcome in outcomes]) for key in outcomes[0]}
        for name, outcomes in seen.items()
    }


def drain(stage: Stage, size: Size) -> Iterator[Figure]:
    """No-op jobs, one worker process."""
    peers = {peer: _peer(stage, peer, size.jobs // _SLOW.get(peer, 1)) for peer in size.peers}
    seen = in_turns(
        size.rounds,
        ours=lambda: stage.run("drain", jobs=size.jobs),
        hundred=lambda: stage.run("drain", jobs=size.jobs, slots=100),
        bare=lambda: stage.run("bare", jobs=size.jobs),
        raw=lambda: stage.run("raw_sql", jobs=size.jobs),
        **peers,
    )
    raw = seen.pop("raw")
    rates = {name: measured["jobs_s"] for name, measured in seen.items()}
    ours = rates["ours"]
    yield ours.figure("drain, full history in SQLite, 400 slots", "jobs/s")
    yield rates["hundred"].figure("the same with 100 slots, the default", "jobs/s")
    yield seen["ours"]["cpu_us"].figure("CPU of the worker for one job", "µs")
    yield rates["bare"].figure("bare claiming loop, nothing stored", "jobs/s")
    yield from _raw_sql(raw, ours, "SQLite")
    for peer in size.peers:
        counted = f"{size.jobs // _SLOW.get(peer, 1):,} jobs"
        yield rates[peer].figure(f"{peer.replace('_', ' ')}, no history, {counted}", "jobs/s")
    yield ours.to(rates["arq_tuned"], "drain to tuned arq", least=5.0)
    fastest = max(size.peers, key=lambda peer: rates[peer].median)
    yield ours.to(rates[fastest], f"drain to the fastest peer ({fastest})", least=2.5)
    yield ours.to(rates["bare"], "drain to the bare loop", least=0.3)


def drain_postgres(stage: Stage, size: Size) -> Iterator[Figure]:
    """The same with the history in PostgreSQL."""
    if not size.has_postgres:
        return
    seen = in_turns(
        size.rounds,
        ours=lambda: stage.run("drain", database="postgresql", jobs=size.jobs),
        raw=lambda: stage.run("raw_sql", database="postgresql", jobs=size.jobs),
        arq=_peer(stage, "arq_tuned", size.jobs),
        procrastinate=_peer(stage, "procrastinate", size.jobs // 5),
    )
    raw = seen.pop("raw")
    rates = {name: measured["jobs_s"] for name, measured in seen.items()}
    yield rates["ours"].figure("drain, full history in PostgreSQL", "jobs/s")
    yield from _raw_sql(raw, rates["ours"], "PostgreSQL")
    counted = f"{size.jobs // 5:,} jobs"
    yield rates["procrastinate"].figure(f"procrastinate, its queue is its history, {counted}", "jobs/s")
    yield rates["ours"].to(rates["arq"], "drain on PostgreSQL to tuned arq", least=3.0)
    yield rates["ours"].to(rates["procrastinate"], "drain on PostgreSQL to procrastinate", least=8.0)


def latency(stage: Stage, size: Size) -> Iterator[Figure]:
    """From the submit to the job's first line, idle system."""
    jobs = min(300, size.jobs // 20)
    seen = in_turns(
        size.rounds, ours=lambda: stage.run("latency", jobs=jobs), arq=_peer(stage, "arq_default", 30, "latency")
    )
    ours = seen["ours"]
    yield ours["p50_ms"].figure("submit to start, p50", "ms", most=3.0)
    yield ours["p99_ms"].figure("submit to start, p99", "ms", most=10.0)
    yield ours["sync_ms"].figure("one sync of this disk (two lie on the way)", "ms")
    yield seen["arq"]["p50_ms"].figure("submit to start, stock arq, p50", "ms")
    yield ours["p50_ms"].to(seen["arq"]["p50_ms"], "submit to start, to stock arq", most=0.02)


def short_jobs(stage: Stage, size: Size) -> Iterator[Figure]:
    """2,000 jobs of 50 ms in 100 slots."""
    seen = in_turns(size.rounds, ours=lambda: stage.run("short", jobs=2000, slots=100))
    yield seen["ours"]["to_ideal"].figure("2,000 jobs of 50 ms in 100 slots, to the ideal 1 s", "×", most=1.15)


def submits(stage: Stage, size: Size) -> Iterator[Figure]:
    """POST of one task at concurrency 64, and batches."""
    seen = in_turns(
        size.rounds, ours=lambda: stage.run("submits", jobs=size.jobs // 2, rows=size.jobs * 5 // 10_000 * 10_000)
    )["ours"]
    yield seen["submits_s"].figure("POST of one task, durable, 64 at a time", "1/s")
    yield seen["cpu_us"].figure("CPU of the API for one POST", "µs")
    yield seen["bare_s"].figure("bare aiohttp handler, same body", "1/s")
    yield seen["to_bare"].figure("POST to the bare handler", "×", least=0.35)
    yield seen["batched_s"].figure("batches of 10,000 lines", "tasks/s", least=20_000)


def backlog(stage: Stage, size: Size) -> Iterator[Figure]:
    """A long backlog against a short one."""
    jobs = size.jobs // 2
    seen = in_turns(
        size.rounds,
        short=lambda: stage.run("backlog", jobs=jobs, rows=2 * jobs),
        long=lambda: stage.run("backlog", jobs=jobs, rows=size.backlog),
    )
    long, short = seen["long"], seen["short"]
    yield long["jobs_s"].to(short["jobs_s"], f"drain with a backlog of {size.backlog:,}", least=0.9)
    yield long["claim_p99_ms"].to(short["claim_p99_ms"], "claim p99 with it", most=1.5)
    yield long["cpu_us"].to(short["cpu_us"], "CPU of the worker for one job with it")
    yield long["redis_cpu_us"].to(short["redis_cpu_us"], "CPU of Redis for one job with it")


def history(stage: Stage, size: Size) -> Iterator[Figure]:
    """A long history beside a short one; and what CPU each costs, for on a busy machine the clock says little."""
    seen = in_turns(1, ours=lambda: stage.run("history", jobs=size.jobs, rows=size.history))["ours"]
    for name in ("status", "list", "stats"):
        long, short = seen[f"long_{name}_p99_ms"], seen[f"short_{name}_p99_ms"]
        yield long.figure(f"{name} p99 with {size.history:,} rows", "ms")
        yield long.to(short, f"{name} p99, to 10,000 rows", most=1.5)
        yield seen[f"long_{name}_p50_ms"].to(seen[f"short_{name}_p50_ms"], f"{name} p50, to 10,000 rows")
    for name, key in {"submits": "submits_s", "drain": "jobs_s"}.items():
        yield seen[f"long_{key}"].to(seen[f"short_{key}"], f"{name} with that history", least=0.85)
    for name in ("status", "list", "stats", "submits", "jobs"):
        long, short = seen[f"long_{name}_cpu_us"], seen[f"short_{name}_cpu_us"]
        yield long.to(short, f"CPU of {name} with that history, to 10,000 rows", most=1.5)


def two_workers(stage: Stage, size: Size) -> Iterator[Figure]:
    """Two worker processes against one."""
    seen = in_turns(
        size.rounds,
        one=lambda: stage.run("two", jobs=min(4000, size.jobs), slots=50, rows=1),
        two=lambda: stage.run("two", jobs=min(4000, size.jobs), slots=50, rows=2),
    )
    yield seen["two"]["jobs_s"].to(seen["one"]["jobs_s"], "two workers to one, on work that waits", least=1.3)


def memory(stage: Stage, size: Size) -> Iterator[Figure]:
    """Bytes a waiting job takes in Redis, and a worker's memory."""
    seen = in_turns(1, ours=lambda: stage.run("memory", jobs=size.memory))["ours"]
    yield seen["redis_bytes_job"].figure("Redis bytes a waiting job", "B", most=450)
    yield seen["rss_mb"].figure(f"RSS of a worker after {size.memory:,} jobs", "MB", most=90)
    yield seen["grown_mb"].figure("of that, grown in the second half", "MB", most=2)
    yield seen["rss_at_work_mb"].figure("the most it held while at work", "MB")


def followers(stage: Stage, size: Size) -> Iterator[Figure]:
    """1,000 websockets, 100 progress events a second."""
    seen = in_turns(size.rounds, ours=lambda: stage.run("followers", jobs=1000, seconds=size.seconds))["ours"]
    yield seen["p99_ms"].figure("1,000 followers, 100 events/s: lag p99", "ms", most=200)
    yield seen["stalled_p99_ms"].figure("the same beside one that stalls", "ms", most=200)
    yield seen["heard"].figure("part of the progress that was told one by one, not coalesced", "×")
    yield seen["cpu_us"].figure("CPU of the API for one message to one follower", "µs")


def idle(stage: Stage, size: Size) -> Iterator[Figure]:
    """A worker with nothing to do."""
    seen = in_turns(1, ours=lambda: stage.run("idle", seconds=10 if size.rounds == 1 else 30))["ours"]
    yield seen["cpu_percent"].figure("idle worker", "% CPU", most=1)
    yield seen["commands_s"].figure("idle worker", "Redis commands/s", most=5)


ROWS = {
    row.__name__: row
    for row in (
        drain,
        drain_postgres,
        latency,
        short_jobs,
        submits,
        backlog,
        history,
        two_workers,
        memory,
        followers,
        idle,
    )
}


def _raw_sql(raw: dict[str, Rounds], drained: Rounds, database: str) -> Iterator[Figure]:
    """What the bare driver writes; a job that is drained is updated twice, at its start and at its end."""
    yield raw["inserts_s"].figure(f"raw inserts into {database}, 100 at a time", "rows/s")
    yield raw["updates_s"].figure(f"raw updates in {database}, 100 at a time", "rows/s")
    yield drained.to(raw["updates_s"], f"drain to raw updates in {database}, of which a job takes two")


def _peer(stage: Stage, peer: str, jobs: int, what: str = "drain") -> Trial:
    return lambda: stage.run_peer(peer, what, jobs)
