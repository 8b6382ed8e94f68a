-- Take what nobody can use out of the queues, and keep its beginning for people to look at.
-- ARGV: most that is kept, then per entry: queue_key, id, reason, what was found
-- Returns: how many were not in quarantine yet.
-- Cost: O(log n) an entry.
local most, fresh = tonumber(ARGV[1]), 0
for at = 2, #ARGV, 4 do
  local queue_key, id, reason, found = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  redis.call('ZREM', queue_key, id)
  redis.call('ZREM', ABORTS, id)
  let_go(id)
  redis.call('DEL', BODY .. id)
  local name = string.sub(id, 1, 512)
  if redis.call('HEXISTS', QUARANTINE, name) == 0 then fresh = fresh + 1 end
  if redis.call('HLEN', QUARANTINE) < most then
    redis.call('HSET', QUARANTINE, name, reason .. '|' .. string.sub(found, 1, 4096))
  end
  redis.call('HINCRBY', TOTALS, 'quarantined|' .. reason, 1)
end
return fresh
