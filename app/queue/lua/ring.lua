-- Offer jobs to workers; harmless when late or repeated: what is there is only moved to where its row says it is.
-- ARGV: lease_ms, walk ('' or the nonce that a rebuild must still bear), search (1 looks for each job under the other priorities first), then per job: queue_key, id, due_ms (0 is now), token ('' is waiting, else running under it), body
-- Returns: how many were missing and are there now; -1, with nothing done, if another walk has begun or Redis was emptied.
-- Cost: O(log n) a job; ten lookups with search.
local lease_ms, walk, search, now, added = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1', now_ms(), 0
if walk ~= '' and redis.call('HGET', EPOCH, 'walk') ~= walk then return -1 end

local standing = {}  -- queue name → those of its keys that there are; what this call adds stands where it should

local function keys_of(name)
  if not standing[name] then
    standing[name] = {}
    for priority = 1, 10 do
      local key = QUEUE .. name .. ':' .. priority
      if redis.call('EXISTS', key) == 1 then table.insert(standing[name], key) end
    end
  end
  return standing[name]
end

-- Redis may have missed that a job got another priority: one that waits is moved now, one that runs stays.
local function where_it_stands(queue_key, id)
  local name = queue_name(queue_key)
  for _, other in ipairs(keys_of(name)) do
    local score = other ~= queue_key and tonumber(redis.call('ZSCORE', other, id) or '')
    if score and score >= RUNNING_OFFSET then return other end
    if score then
      redis.call('ZREM', other, id)
      place(queue_key, score, id)
      redis.call('SADD', BUSY, queue_key)
      ring_bell(name)
    end
  end
  return queue_key
end

-- An entry from before Redis was set back: it may lack its lease, or wait for a time that is not the row's any more.
local function put_right(queue_key, id, due_ms, token)
  local score = tonumber(redis.call('ZSCORE', queue_key, id))
  if score >= RUNNING_OFFSET then
    if not redis.call('ZSCORE', LEASES, id) then
      if not claim_of(id) then redis.call('HSET', CLAIMS, id, queue_key .. '|' .. token) end
      redis.call('ZADD', LEASES, now + lease_ms, id)  -- else nobody would ever find it dead
    end
  elseif search and token == '' and score > math.max(due_ms, now) then
    place(queue_key, due_ms, id)
    ring_bell(queue_name(queue_key))
  end
  if search then redis.call('SADD', BUSY, queue_key) end
end

for at = 4, #ARGV, 5 do
  local queue_key, id, due_ms, token, body = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  if search then queue_key = where_it_stands(queue_key, id) end
  local score = due_ms == 0 and now or due_ms
  if token ~= '' then score = score + RUNNING_OFFSET end
  if redis.call('ZADD', queue_key, 'NX', exact(score), id) == 1 then
    added = added + 1
    redis.call('SET', BODY .. id, body)
    redis.call('SADD', BUSY, queue_key)
    if token ~= '' then
      hold(id, queue_key, token, now, lease_ms)
    else
      ring_bell(queue_name(queue_key))
    end
  else
    put_right(queue_key, id, due_ms, token)
  end
end
return added
