"""What a Redis says of itself, judged: what would lose jobs is refused, what is unwise is said, the rest is fine."""

from typing import Any

import pytest

from app.errors import Misconfigured
from app.queue.inspection import judge

FINE = {"redis_version": "7.2.4", "maxmemory": 0, "maxmemory_policy": "noeviction", "aof_enabled": 1}


def test_a_redis_that_keeps_everything_needs_no_advice() -> None:
    assert judge(FINE) == []


@pytest.mark.parametrize("version", ["2.8.1", "5.0.14", "6.0.16", "6.1"])
def test_an_old_redis_is_refused(version: str) -> None:
    with pytest.raises(Misconfigured, match=r"6\.2 or later"):
        judge(FINE | {"redis_version": version})


@pytest.mark.parametrize("version", ["6.2", "6.2.14", "7.4.0", "10.0.1", "", "unknown"])
def test_a_new_or_unnamed_version_is_taken(version: str) -> None:
    assert judge(FINE | {"redis_version": version}) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_would_evict_queues_is_refused_and_told_what_to_set(policy: str) -> None:
    with pytest.raises(Misconfigured, match="must be noeviction"):
        judge(FINE | {"maxmemory": 1 << 20, "maxmemory_policy": policy})


@pytest.mark.parametrize(("limit", "policy"), [(0, "allkeys-lru"), (1 << 20, "volatile-ttl")])
def test_a_redis_that_might_evict_is_advised_against(limit: int, policy: str) -> None:
    (advice,) = judge(FINE | {"maxmemory": limit, "maxmemory_policy": policy})

    assert policy in advice
    assert "noeviction" in advice


def test_a_redis_without_an_aof_is_advised_against() -> None:
    (advice,) = judge(FINE | {"aof_enabled": 0})

    assert "appendonly yes" in advice


@pytest.mark.parametrize("told", [{}, {"redis_version": "7.2.4"}])
def test_what_a_host_does_not_tell_is_said_to_be_unknown(told: dict[str, Any]) -> None:
    eviction, durability = judge(told)

    assert "noeviction" in eviction
    assert "appendonly yes" in durability
