-- Let go of claimed jobs, each fenced by its token: what another claim holds by now is left alone.
-- ARGV: lease_ms, result_ttl_ms, then per job: id, token, verb, argument
--   done  result JSON or ''      the job has ended: it leaves Redis
--   wait  due_ms, or -1          it waits again, at that time or at the place it had
--   lend  token                  it runs under that other claim, which gets the lease for one more period
-- Returns: per job 1, or 0 if it was no longer held under the token.
-- Cost: O(log n) a job.
local lease_ms, result_ttl_ms, now, kept = tonumber(ARGV[1]), ARGV[2], now_ms(), {}
for at = 3, #ARGV, 4 do
  local id, token, verb, argument = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local queue_key, claimed = claim_of(id)
  if claimed ~= token then
    kept[#kept + 1] = 0
  else
    kept[#kept + 1] = 1
    if verb == 'lend' then
      hold(id, queue_key, argument, now, lease_ms)
    else
      let_go(id)
      if verb == 'done' then
        redis.call('ZREM', queue_key, id)
        redis.call('ZREM', ABORTS, id)
        redis.call('DEL', BODY .. id, PROGRESS .. id)
        if argument ~= '' then redis.call('SET', RESULT .. id, argument, 'PX', result_ttl_ms) end
      else
        local due_ms = tonumber(argument)
        local score = tonumber(redis.call('ZSCORE', queue_key, id) or '') or now
        if due_ms >= 0 then score = due_ms elseif score >= RUNNING_OFFSET then score = score - RUNNING_OFFSET end
        place(queue_key, score, id)
        redis.call('SADD', BUSY, queue_key)
        ring_bell(queue_name(queue_key))
      end
    end
  end
end
return kept
