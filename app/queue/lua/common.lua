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

local function queue_name(queue_key)
  return string.match(string.sub(queue_key, #QUEUE + 1), '^(.*):%d+$')
end

local function ring_bell(name)  -- one token is enough: who claims all it can rings on
  if redis.call('LLEN', BELL .. name) == 0 then redis.call('LPUSH', BELL .. name, '1') end
end

local function claim_of(id)  -- the queue key and the token of the last claim, or nothing
  local claim = redis.call('HGET', CLAIMS, id)
  if not claim then return nil, nil end
  return string.match(claim, '^(.-)|(.*)$')
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
