-- Move one waiting job to another priority of its queue, and to another time; without one it keeps its score,
-- so its age counts there too.
-- ARGV: queue name, id, priority, due_ms or ''
-- Returns: 1, or 0 if it does not wait in this queue (or is there already).
-- Cost: ten lookups.
local name, id, target, due_ms = ARGV[1], ARGV[2], QUEUE .. ARGV[1] .. ':' .. ARGV[3], tonumber(ARGV[4])
for priority = 1, 10 do
  local queue_key = QUEUE .. name .. ':' .. priority
  local score = tonumber(redis.call('ZSCORE', queue_key, id) or '')
  if score and score < RUNNING_OFFSET and (due_ms or queue_key ~= target) then
    redis.call('ZREM', queue_key, id)
    place(target, due_ms or score, id)
    redis.call('SADD', BUSY, target)
    ring_bell(name)
    return 1
  end
end
return 0
