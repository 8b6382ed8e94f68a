-- Take units of callers' rates (the generic cell rate algorithm): one number a caller, when its debt will be paid.
-- ARGV: burst, interval in µs of one unit, then per request: caller, cost in units
-- Returns, per request: {µs to wait until it may be taken, 0 if it was taken; µs until the whole debt is paid}
-- A cost beyond the burst waits for a full burst, and leaves a debt; one below zero gives back.
-- A key fades once its debt is paid.
-- Atomic for the batch. Cost: O(1) a request.
local burst, interval = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now, answers = time[1] * 1000000 + time[2], {}

local function paid_at(key)  -- what cannot be a debt is none: it would keep a caller out for ever
  local known = redis.pcall('GET', key)
  local at = type(known) == 'string' and tonumber(known)
  if not at or at ~= at or at < now or at > now + interval * (burst + MAX_COST) then return now end
  return at
end

for at = 3, #ARGV, 2 do
  local key, cost = RATE .. ARGV[at], tonumber(ARGV[at + 1])
  local paid = paid_at(key)
  local wait = paid + (math.min(cost, burst) - burst) * interval - now
  if wait <= 0 then
    paid = math.max(now, paid + cost * interval)
    if paid > now then
      redis.call('SET', key, exact(paid), 'PX', exact(math.ceil((paid - now) / 1000) + 1))
    else
      redis.call('DEL', key)
    end
  end
  answers[#answers + 1] = math.max(0, math.ceil(wait))
  answers[#answers + 1] = math.ceil(paid - now)
end
return answers
