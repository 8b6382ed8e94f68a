-- Take waiting jobs out again; one that somebody holds is left to its holder.
-- ARGV: result_ttl_ms, then per job: queue_key, id, result JSON or ''
-- Returns: per job 1, or 0 if it is held.
-- Cost: O(log n) a job.
local gone = {}
for at = 2, #ARGV, 3 do
  local queue_key, id, result = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if redis.call('EXISTS', HOLDER .. id) == 1 then
    gone[#gone + 1] = 0
  else
    redis.call('ZREM', queue_key, id)
    let_go(id)
    redis.call('ZREM', ABORTS, id)
    redis.call('DEL', BODY .. id, PROGRESS .. id)
    if result ~= '' then redis.call('SET', RESULT .. id, result, 'PX', ARGV[1]) end
    gone[#gone + 1] = 1
  end
end
return gone
