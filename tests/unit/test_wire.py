"""What stands in Redis: JSON in arq's own shape, so that arq's client reads it; never pickle."""

import asyncio
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from arq.jobs import JobResult, deserialize_job, deserialize_result, serialize_job
from arq.worker import Retry as ArqRetry

from app.queue import wire
from app.queue.wire import JobFailed, body_of, read_body, result_of, retry_of

AT_MS = 1_700_000_000_000


class Bomb:
    """Leaves a trace when a pickle of it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def stored(*, result: str | None = None, error: dict[str, str] | None = None) -> bytes:
    return result_of(
        job_id="the-id",
        kind="test.note",
        params={"text": "hello"},
        attempt=2,
        queue_key="arq:queue:alpha:5",
        enqueued_ms=AT_MS,
        started_ms=AT_MS + 1000,
        ended_ms=AT_MS + 2000,
        result=result,
        error=error,
    )


def as_arq_reads(raw: bytes) -> JobResult:
    return deserialize_result(raw, deserializer=wire.load)


def test_arq_reads_our_bodies() -> None:
    read = deserialize_job(body_of("test.note", {"text": "hello"}, AT_MS), deserializer=wire.load)

    assert (read.function, read.args, read.kwargs, read.job_try) == ("test.note", [], {"text": "hello"}, None)
    assert read.enqueue_time == datetime.fromtimestamp(AT_MS / 1000, UTC)


def test_our_bodies_are_json_and_marked() -> None:
    raw = body_of("test.note", {"text": "hello"}, AT_MS)

    assert orjson.loads(raw)["f"] == "test.note"
    assert read_body(raw) == wire.Body(
        kind="test.note", args=[], kwargs={"text": "hello"}, enqueued_ms=AT_MS, is_ours=True
    )


def test_a_body_of_arqs_client_is_read_as_not_ours() -> None:
    raw = serialize_job("note", (1, 2), {"text": "x"}, None, AT_MS, serializer=wire.dump)

    assert read_body(raw) == wire.Body(kind="note", args=[1, 2], kwargs={"text": "x"}, enqueued_ms=AT_MS, is_ours=False)


@pytest.mark.parametrize("sent", [b"", b', "et": null', b', "et": "soon"', b', "et": 1e300'])
def test_a_body_need_not_say_when_it_was_sent(sent: bytes) -> None:
    body = read_body(b'{"f": "note", "a": [], "k": {}' + sent + b"}")

    assert body is not None
    assert body.enqueued_ms == 0


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    body = read_body(serialize_job("note", (Bomb(trace),), {}, None, AT_MS))

    assert body is None
    assert not trace.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\x00",
        b"null",
        b"[]",
        b'"text"',
        b'{"f": "note"}',
        b'{"f": "note", "a": 1, "k": {}}',
        b'{"f": "note", "a": "text", "k": {}}',
        b'{"f": "note", "a": [], "k": 1}',
        b'{"f": "note", "a": [], "k": [["text", 1]]}',
        b'{"f": 1, "a": [], "k": {}}',
        b'{"f": ["note"], "a": [], "k": {}}',
        rb'{"f": "nul\u0000", "a": [], "k": {}}',
        pickle.dumps({"f": "note", "a": [], "k": {}}),
    ],
)
def test_what_has_not_the_shape_of_a_body_is_none(raw: bytes) -> None:
    assert read_body(raw) is None


def test_arq_reads_our_results() -> None:
    read = as_arq_reads(stored(result='{"text":"done"}'))

    assert (read.success, read.result) == (True, {"text": "done"})
    assert (read.job_id, read.function, read.kwargs) == ("the-id", "test.note", {"text": "hello"})
    assert (read.job_try, read.queue_name) == (2, "arq:queue:alpha:5")
    assert (read.finish_time - read.start_time).total_seconds() == 1


def test_a_result_that_is_nothing_is_none() -> None:
    assert as_arq_reads(stored()).result is None


def test_a_failure_becomes_an_exception_with_its_code() -> None:
    read = as_arq_reads(stored(error={"code": "timeout", "message": "too long"}))

    assert not read.success
    assert isinstance(read.result, JobFailed)
    assert (read.result.message, read.result.facts) == ("too long", {"code": "timeout"})


def test_a_cancelled_result_becomes_a_cancellation() -> None:
    read = as_arq_reads(stored(error={"code": wire.CANCELLED, "message": "cancelled"}))

    assert isinstance(read.result, asyncio.CancelledError)


def test_a_retry_of_arq_says_the_same_in_our_words() -> None:
    asked = retry_of(ArqRetry(defer=1.5))

    assert asked is not None
    assert asked.after == 1.5


def test_a_retry_of_arq_without_a_delay_takes_the_job_types_own() -> None:
    asked = retry_of(ArqRetry())

    assert asked is not None
    assert asked.after is None


def test_any_other_exception_asks_for_no_retry() -> None:
    assert retry_of(ValueError()) is None
