-- Renew leases. What Redis has lost is made anew; only another claim is a loss; what was let go stays let go.
-- ARGV: lease_ms, then per job: id, queue_key, token
-- Returns: {ids not renewed: another's claim has them, or they were let go; ids that arq's abort() asked to stop}
-- Cost: O(log n) a job.
local lease_ms, now, lost, aborted = tonumber(ARGV[1]), now_ms(), {}, {}
watch_clock(now, lease_ms)

local function is_let_go(id, queue_key)  -- this renewal was on its way when the job ended, or went back to wait
  local score = tonumber(redis.call('ZSCORE', queue_key, id) or '')
  return (score and score < RUNNING_OFFSET) or redis.call('EXISTS', RESULT .. id) == 1
end

for at = 2, #ARGV, 3 do
  local id, queue_key, token = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local holder = holder_of(id)
  local _, claimed = claim_of(id)
  if (holder and holder ~= token) or (claimed and claimed ~= token) then
    lost[#lost + 1] = id
  elseif holder or claimed or not is_let_go(id, queue_key) then
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
