-- Put before every script. Keys arrive as locals from app/queue/keys.py; none is spelled in Lua.
-- redis.call is atomic per script: nothing else runs on the server in between.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function exact(number)  -- Lua would print a large score as 1.7e+15
  return string.format('%.0f', number)
end

local function place(queue_key, score, id)
  redis.call('ZADD', queue_key, exact(score), id)
end

local function waiting_score(score, now)  -- where a job waits that stood at this score; what is none is now
  if score >= RUNNING_OFFSET then score = score - RUNNING_OFFSET end
  if score ~= score or score < 0 or score >= RUNNING_OFFSET then return now end
  return score
end

local function queue_of(queue_key)  -- name and priority; nothing for what is no queue key of ours, to the letter
  if string.sub(queue_key, 1, #QUEUE) ~= QUEUE then return nil end
  local name, priority = string.match(string.sub(queue_key, #QUEUE + 1), '^(.+):([1-9]0?)$')
  priority = tonumber(priority)
  if priority and priority <= 10 then return name, priority end
end

local function queue_name(queue_key)
  return (queue_of(queue_key))
end

local function ring_bell(name)  -- one token is enough: who claims all it can rings on
  if redis.call('LLEN', BELL .. name) == 0 then redis.call('LPUSH', BELL .. name, '1') end
end

local function read_claim(claim)  -- the queue key and the token, or nothing for what nobody of us wrote
  local queue_key, token = string.match(claim or '', '^(.-)|(.*)$')
  if queue_key and queue_of(queue_key) then return queue_key, token end
  return nil, nil
end

local function claim_of(id)  -- those of the last claim
  return read_claim(redis.call('HGET', CLAIMS, id))
end

local function holder_of(id)
  local holder = redis.pcall('GET', HOLDER .. id)
  return type(holder) == 'string' and holder or nil
end

local function hold(id, queue_key, token, now, lease_ms)
  redis.call('SET', HOLDER .. id, token, 'PX', lease_ms)
  redis.call('ZADD', LEASES, now + lease_ms, id)
  redis.call('HSET', CLAIMS, id, queue_key .. '|' .. token)
end

local function let_go(id)
  redis.call('ZREM', LEASES, id)
  redis.call('HDEL', CLAIMS, id)
  redis.call('DEL', HOLDER .. id)
end

local function give_grace(now, lease_ms)  -- one fresh period for every lease
  local ids = redis.call('ZRANGE', LEASES, 0, -1)
  for first = 1, #ids, 500 do
    local fresh = {}
    for at = first, math.min(first + 499, #ids) do
      fresh[#fresh + 1] = now + lease_ms
      fresh[#fresh + 1] = ids[at]
    end
    redis.call('ZADD', LEASES, unpack(fresh))
  end
end

-- Every claim and renewal passes here, and a worker renews at least each third of a lease: a longer silence means
-- that Redis was away, or that its time has jumped. Nobody could renew meanwhile, so nobody is dead.
local function watch_clock(now, lease_ms)
  local seen = tonumber(redis.call('SET', CLOCK, exact(now), 'GET') or '')
  if not seen or math.abs(now - seen) > math.min(5000, lease_ms * 0.6) then give_grace(now, lease_ms) end
end
