"""Metric definitions: what ``/metrics`` says, in Prometheus' terms. Everybody may import it.

Counts of jobs live in Redis, shared by all processes; they are turned into families here when somebody
asks. Counts of HTTP requests are this process's own.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class ProcessMetrics:
    """What this process counts itself: its HTTP requests, and its own memory, CPU time and open files."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = _Requests()
        self._registry.register(self._requests)

    def count_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answered request; the life of a websocket (status 101) is no duration."""
        self._requests.count(method, route, status, duration_s)

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self._registry)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueGauges:
    """One queue, as measured now."""

    name: str
    ready: int
    scheduled: int
    running: int
    is_paused: bool
    oldest_ready_age_s: float


def render(families: Iterable[Metric]) -> bytes:
    """Return the exposition text of families that were made just now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Made(families))
    return generate_latest(registry)


def job_families(totals: Mapping[tuple[str, ...], int], buckets_s: Sequence[float]) -> Iterator[Metric]:
    """Make ``tasks_total``, ``task_duration_seconds`` and ``entries_quarantined_total`` from the shared counters.

    ``totals`` has the keys ``(tasks, kind, queue, status)``, ``(bucket, kind, queue, upper bound)`` (each
    duration counted in one bucket), ``(micros, kind, queue)`` and ``(quarantined, reason)``; others are left out.
    """
    ended = CounterMetricFamily(
        "tasks", "Attempts and jobs that ended, by outcome.", labels=["task", "queue", "status"]
    )
    quarantined = CounterMetricFamily(
        "entries_quarantined", "What Redis held and nobody could use, put aside.", labels=["reason"]
    )
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    micros: dict[tuple[str, str], int] = {}
    for key, count in totals.items():
        match key:
            case ("tasks", kind, queue, status):
                ended.add_metric([kind, queue, status], count)
            case ("bucket", kind, queue, bound):
                counts[kind, queue][bound] = count
            case ("micros", kind, queue):
                micros[kind, queue] = count
            case ("quarantined", reason):
                quarantined.add_metric([reason], count)
    yield ended
    yield quarantined
    yield _durations(counts, micros, [*map(str, buckets_s), "+Inf"])


def queue_families(queues: Iterable[QueueGauges]) -> Iterator[Metric]:
    """Make the gauges of the queues."""
    measured = tuple(queues)
    gauges = {
        "ready": ("Jobs that could start now.", [float(queue.ready) for queue in measured]),
        "scheduled": ("Jobs that wait for a time.", [float(queue.scheduled) for queue in measured]),
        "running": ("Jobs that run now.", [float(queue.running) for queue in measured]),
        "paused": ("1 while the queue is paused.", [float(queue.is_paused) for queue in measured]),
        "oldest_ready_age_seconds": (
            "How long the oldest ready job has waited; 0 when none is ready.",
            [queue.oldest_ready_age_s for queue in measured],
        ),
    }
    for name, (help_text, values) in gauges.items():
        family = GaugeMetricFamily(f"queue_{name}", help_text, labels=["queue"])
        for queue, value in zip(measured, values, strict=True):
            family.add_metric([queue.name], value)
        yield family


def gauge(name: str, help_text: str, value: float) -> Metric:
    """Make a gauge without labels."""
    return GaugeMetricFamily(name, help_text, value=value)


class _Requests(Collector):
    """Counts the requests of one event loop: without locks, which cost more than all the rest of counting."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._buckets: dict[tuple[str, str], list[int]] = {}  # how many took no longer than each bound, and the last
        self._sums_s: defaultdict[tuple[str, str], float] = defaultdict(float)

    def count(self, method: str, route: str, status: int, duration_s: float) -> None:
        self._counts[method, route, status] += 1
        if status == 101:
            return
        of_route = (method, route)
        if of_route not in self._buckets:
            self._buckets[of_route] = [0] * (len(REQUEST_BUCKETS_S) + 1)
        self._buckets[of_route][bisect_left(REQUEST_BUCKETS_S, duration_s)] += 1
        self._sums_s[of_route] += duration_s

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("http_requests", "HTTP requests answered.", labels=("method", "route", "status"))
        for (method, route, status), count in self._counts.items():
            requests.add_metric((method, route, str(status)), count)
        durations = HistogramMetricFamily(
            "http_request_duration_seconds",
            "How long answering took, without websockets.",
            labels=("method", "route"),
        )
        bounds = [*map(floatToGoString, REQUEST_BUCKETS_S), "+Inf"]
        for of_route, counts in self._buckets.items():
            buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            durations.add_metric(of_route, buckets=buckets, sum_value=self._sums_s[of_route])
        yield requests
        yield durations


class _Made(Collector):
    """Hands finished families to prometheus-client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _durations(
    counts: Mapping[tuple[str, str], Mapping[str, int]], micros: Mapping[tuple[str, str], int], bounds: Sequence[str]
) -> Metric:
    family = HistogramMetricFamily(
        "task_duration_seconds", "How long attempts ran.", labels=["task", "queue"], unit="seconds"
    )
    for labels, found in counts.items():
        cumulative, buckets = 0, []
        for bound in bounds:
            cumulative += found.get(bound, 0)
            buckets.append((bound, float(cumulative)))
        family.add_metric(list(labels), buckets=buckets, sum_value=micros.get(labels, 0) / 1e6)
    return family
