-- Offer jobs to workers; harmless when late or repeated, because nothing that is there is touched.
-- ARGV: lease_ms, then per job: queue_key, id, due_ms (0 is now), token ('' is waiting, else running under it), body
-- Returns: how many were missing and are there now.
-- Cost: O(log n) a job.
local lease_ms, now, added = tonumber(ARGV[1]), now_ms(), 0
for at = 2, #ARGV, 5 do
  local queue_key, id, due_ms, token, body = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local score = due_ms == 0 and now or due_ms
  if token ~= '' then score = score + RUNNING_OFFSET end
  if redis.call('ZADD', queue_key, 'NX', exact(score), id) == 1 then
    added = added + 1
    redis.call('SET', BODY .. id, body)
    redis.call('SADD', BUSY, queue_key)
    if token ~= '' then
      hold(id, queue_key, token, now, lease_ms)
    else
      ring_bell(queue_name(queue_key))
    end
  elseif tonumber(redis.call('ZSCORE', queue_key, id)) >= RUNNING_OFFSET and not redis.call('ZSCORE', LEASES, id) then
    redis.call('ZADD', LEASES, now + lease_ms, id)  -- nobody would ever find it dead
  end
end
return added
