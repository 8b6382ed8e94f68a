-- Renew leases. A missing lease is made anew (Redis may have lost it); only another holder is a loss.
-- ARGV: lease_ms, then per job: id, queue_key, token
-- Returns: {ids lost, ids that arq's abort() asked to stop}
-- Cost: O(log n) a job.
local lease_ms, now, lost, aborted = tonumber(ARGV[1]), now_ms(), {}, {}
for at = 2, #ARGV, 3 do
  local id, queue_key, token = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local holder = redis.call('GET', HOLDER .. id)
  local _, claimed = claim_of(id)
  if holder == token or (not holder and (claimed == token or not claimed)) then
    hold(id, queue_key, token, now, lease_ms)
    local score = tonumber(redis.call('ZSCORE', queue_key, id) or '') or now
    if score < RUNNING_OFFSET then
      place(queue_key, score + RUNNING_OFFSET, id)
      redis.call('SADD', BUSY, queue_key)
    end
    if redis.call('ZREM', ABORTS, id) == 1 then aborted[#aborted + 1] = id end
  else
    lost[#lost + 1] = id
  end
end
return {lost, aborted}
