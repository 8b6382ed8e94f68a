-- Let go of claimed jobs, each fenced by its token: what another claim holds by now is left alone.
-- ARGV: lease_ms, result_ttl_ms, then per job: id, token, verb, argument
--   done  result JSON or ''      the job has ended: it leaves Redis
--   wait  due_ms, or -1          it waits again, at that time or at the place it had
--   lend  token                  it runs under that other claim, which gets the lease for one more period
-- Returns: per job 1, or 0 if it was no longer held under the token.
-- Cost: O(log n) a job; what many jobs need is asked for in one command.
local CALLED, MARKED_WITHIN_MS = 1, 1000  -- arq's abort() puts a scheduled job at 1, and then marks it
local lease_ms, result_ttl_ms, now = tonumber(ARGV[1]), ARGV[2], now_ms()
local ids, claims = {}, {}
for at = 3, #ARGV, 4 do ids[#ids + 1] = ARGV[at] end
if #ids == 0 then return {} end
for at, claim in ipairs(redis.call('HMGET', CLAIMS, unpack(ids))) do claims[ids[at]] = claim end

local kept, freed, holders, ended, members = {}, {}, {}, {}, {}
for at = 3, #ARGV, 4 do
  local id, token, verb, argument = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local queue_key, claimed = read_claim(claims[id])
  if claimed ~= token then
    kept[#kept + 1] = 0
  else
    kept[#kept + 1] = 1
    claims[id] = nil  -- a second item for this job has lost
    if verb == 'lend' then
      hold(id, queue_key, argument, now, lease_ms)
    else
      freed[#freed + 1] = id
      holders[#holders + 1] = HOLDER .. id
      if verb == 'done' then
        ended[#ended + 1] = BODY .. id
        ended[#ended + 1] = PROGRESS .. id
        members[queue_key] = members[queue_key] or {}
        table.insert(members[queue_key], id)
        if argument ~= '' then redis.call('SET', RESULT .. id, argument, 'PX', result_ttl_ms) end
      else
        local due_ms = tonumber(argument)
        local stood = waiting_score(tonumber(redis.call('ZSCORE', queue_key, id) or '') or now, now)
        if due_ms < 0 then
          due_ms = stood
        elseif stood <= CALLED then  -- who claimed it between the call and its mark looks for the mark once more
          due_ms = math.min(due_ms, now + MARKED_WITHIN_MS)
        end
        place(queue_key, due_ms, id)
        redis.call('SADD', BUSY, queue_key)
        ring_bell(queue_name(queue_key))
      end
    end
  end
end

if #freed > 0 then
  redis.call('ZREM', LEASES, unpack(freed))
  redis.call('HDEL', CLAIMS, unpack(freed))
  redis.call('DEL', unpack(holders))
end
for queue_key, gone in pairs(members) do
  redis.call('ZREM', queue_key, unpack(gone))
  redis.call('ZREM', ABORTS, unpack(gone))
end
if #ended > 0 then redis.call('DEL', unpack(ended)) end
return kept
