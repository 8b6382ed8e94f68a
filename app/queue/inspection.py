"""Looks at how a Redis is set up before anybody trusts it with jobs. Asks by INFO, which nearly every host allows."""

from collections.abc import Mapping
from typing import Any

from redis.exceptions import ResponseError

from app.errors import Misconfigured
from app.queue.connect import Redis

_LEAST_VERSION = (6, 2)  # ZMSCORE, fractions of a second in BLPOP


async def inspect_redis(redis: Redis) -> list[str]:
    """Return what had better be changed; raise Misconfigured for what would lose jobs or cannot work."""
    try:
        told = await redis.info()
    except ResponseError as error:
        return [f"Redis does not tell how it is set up ({error}); make sure that it evicts nothing and keeps an AOF."]
    return judge(told)


def judge(told: Mapping[str, Any]) -> list[str]:
    """Judge the fields of INFO; one that a host leaves out is taken for fine, and said to be unknown."""
    _check_version(str(told.get("redis_version", "")))
    return [*_eviction(told), *_durability(told)]


def _check_version(version: str) -> None:
    parts = version.split(".")[:2]
    if len(parts) == 2 and all(part.isdigit() for part in parts) and tuple(map(int, parts)) < _LEAST_VERSION:
        raise Misconfigured(f"Redis {version} is too old: 6.2 or later is needed, or any Valkey.")


def _eviction(told: Mapping[str, Any]) -> list[str]:
    policy, limit = told.get("maxmemory_policy"), told.get("maxmemory")
    if policy is None or limit is None:
        return ["Redis does not tell its maxmemory-policy; make sure that it is noeviction."]
    if policy == "noeviction":
        return []
    advice = f"maxmemory-policy is {policy}, but must be noeviction: set it so in redis.conf, or by CONFIG SET"
    if limit and str(policy).startswith("allkeys"):
        raise Misconfigured(f"Redis would evict queues and leases once its {limit} bytes are full: {advice}.")
    return [f"Redis may evict keys once maxmemory is reached: {advice}."]


def _durability(told: Mapping[str, Any]) -> list[str]:
    match told.get("aof_enabled"):
        case 1:
            return []
        case None:
            return ["Redis does not tell whether it keeps an AOF; make sure that it does (appendonly yes)."]
    return ["Redis keeps no AOF: after a restart every job is offered again from the database. Set appendonly yes."]
