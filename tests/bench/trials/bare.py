"""The limit: a loop that claims and finishes in batches in arq's wire format, with no leases, no SQL, no tasks."""

import time

import orjson

from app.clock import new_id
from app.queue.connect import open_redis
from tests.bench.trials.house import Terms

_BATCH = 200
_CLAIM = """
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, ARGV[1])
if #ids == 0 then return {} end
redis.call('ZREM', KEYS[1], unpack(ids))
local bodies = {}
for at, id in ipairs(ids) do bodies[at] = 'arq:job:' .. id end
return {ids, redis.call('MGET', unpack(bodies))}
"""


async def run(terms: Terms) -> dict[str, float]:
    """Claim, parse and finish ``jobs`` jobs."""
    redis = open_redis(terms.redis_url)
    body = orjson.dumps({"t": None, "f": "noop", "a": [], "k": {}, "et": 1})
    for _ in range(0, terms.jobs, 1000):
        ids = [new_id() for _ in range(1000)]
        pipe = redis.pipeline(transaction=False)
        pipe.zadd("bare", dict.fromkeys(ids, 1.0))
        pipe.mset({f"arq:job:{job_id}": body for job_id in ids})
        await pipe.execute()
    claim, done, before = redis.register_script(_CLAIM), 0, time.perf_counter()
    while found := await claim(keys=["bare"], args=[_BATCH]):
        pipe = redis.pipeline(transaction=False)
        for job_id, raw in zip(*found, strict=True):
            orjson.loads(raw)
            pipe.set(b"arq:result:" + job_id, b"{}", px=3_600_000)
        pipe.delete(*(b"arq:job:" + job_id for job_id in found[0]))
        await pipe.execute()
        done += len(found[0])
    seconds = time.perf_counter() - before
    await redis.aclose(close_connection_pool=True)
    return {"jobs_s": done / seconds}
