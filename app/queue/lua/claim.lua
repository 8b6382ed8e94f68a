-- Claim due jobs: highest priority first, first in first out inside a priority, across all queues served.
-- ARGV: want, lease_ms, token, search (1 looks at every key, not only at the busy ones), then the queue names served
-- Returns: {now_ms, ms until a job is due or a lease runs out or -1, 1 if more may be due, id, queue_key, dead token or '', aborted 0|1, ...}
-- Cost: O(busy keys + want · log n); an idle claim is a handful of commands, and a job one of its own.
local want, lease_ms, token, search = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4] == '1'
local now, served = now_ms(), {}
for at = 5, #ARGV do served[ARGV[at]] = true end
watch_clock(now, lease_ms)

local function where_it_runs(id)  -- for a lease whose claim nobody can read
  for name in pairs(served) do
    for priority = 1, 10 do
      local queue_key = QUEUE .. name .. ':' .. priority
      local score = tonumber(redis.call('ZSCORE', queue_key, id) or '')
      if score and score >= RUNNING_OFFSET then return queue_key end
    end
  end
end

-- A job whose worker went silent goes back to its place. Its claim stays: the next claimer reports it as dead.
local function rescue(id)
  local queue_key = claim_of(id) or where_it_runs(id)
  redis.call('ZREM', LEASES, id)
  redis.call('DEL', HOLDER .. id)
  local score = queue_key and tonumber(redis.call('ZSCORE', queue_key, id) or '')
  if score and score >= RUNNING_OFFSET then
    place(queue_key, waiting_score(score, now), id)
    redis.call('SADD', BUSY, queue_key)
    ring_bell(queue_name(queue_key))
  elseif not score then
    redis.call('HDEL', CLAIMS, id)
  end
end

local first = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
if first[2] and tonumber(first[2]) <= now then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 200)) do rescue(id) end
  first = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
end

local busy = redis.call('SMEMBERS', BUSY)
if search then  -- a stock arq client fills a sorted set and knows nothing of the rest
  local known, unknown = {}, {}
  for _, queue_key in ipairs(busy) do known[queue_key] = true end
  for name in pairs(served) do
    for priority = 1, 10 do
      local queue_key = QUEUE .. name .. ':' .. priority
      if not known[queue_key] then unknown[#unknown + 1] = queue_key end
    end
  end
  if #unknown > 0 and redis.call('EXISTS', unpack(unknown)) > 0 then  -- one command while there is none
    for _, queue_key in ipairs(unknown) do
      if redis.call('EXISTS', queue_key) == 1 then
        redis.call('SADD', BUSY, queue_key)
        busy[#busy + 1] = queue_key
      end
    end
  end
end

if #busy > 0 then
  for _, name in ipairs(redis.call('SMEMBERS', PAUSED)) do served[name] = nil end
end
local levels = {}
for _, queue_key in ipairs(busy) do
  local name, priority = queue_of(queue_key)
  if not name then
    redis.call('SREM', BUSY, queue_key)  -- nobody of us wrote that
  elseif served[name] then
    levels[priority] = levels[priority] or {}
    table.insert(levels[priority], queue_key)
  end
end

local out, next_due, more = {now, -1, 0}, nil, 0

-- Hold the first of these entries, and return how many that are. What many need is asked for in one command, and read
-- before anything is written: a key of a wrong type must not leave a job half claimed.
local function take(due, count)
  if count == 0 then return 0 end
  local ids, scores, leases, claims = {}, {}, {}, {}
  for at = 1, count do ids[at] = due[at][2] end
  local before, aborts = redis.call('HMGET', CLAIMS, unpack(ids)), redis.call('ZMSCORE', ABORTS, unpack(ids))
  for at, id in ipairs(ids) do
    local score, queue_key = math.max(due[at][1], 0), due[at][3]
    scores[queue_key] = scores[queue_key] or {}
    table.insert(scores[queue_key], exact(score + RUNNING_OFFSET))
    table.insert(scores[queue_key], id)
    if redis.call('SET', HOLDER .. id, token, 'NX', 'PX', lease_ms) then
      local _, dead = read_claim(before[at])
      leases[#leases + 1], claims[#claims + 1] = now + lease_ms, id
      leases[#leases + 1], claims[#claims + 1] = id, queue_key .. '|' .. token
      out[#out + 1] = id
      out[#out + 1] = queue_key
      out[#out + 1] = dead or ''
      out[#out + 1] = aborts[at] and 1 or 0
    else
      -- Somebody holds it: arq's abort() re-scores a running job. It goes back under its holder's lease.
      redis.call('ZADD', LEASES, 'NX', now + math.max(redis.call('PTTL', HOLDER .. id), 1000), id)
      more = 1  -- it may have hidden another
    end
  end
  for queue_key, members in pairs(scores) do redis.call('ZADD', queue_key, unpack(members)) end
  if #claims > 0 then
    redis.call('ZADD', LEASES, unpack(leases))
    redis.call('HSET', CLAIMS, unpack(claims))
  end
  return #claims / 2
end
for priority = 10, 1, -1 do
  if want == 0 then break end
  local due = {}
  for _, queue_key in ipairs(levels[priority] or {}) do
    local found = redis.call('ZRANGEBYSCORE', queue_key, '-inf', now, 'WITHSCORES', 'LIMIT', 0, want)
    for at = 1, #found, 2 do due[#due + 1] = {tonumber(found[at + 1]), found[at], queue_key} end
    if #found < 2 * want then
      local waiting = redis.call('ZRANGEBYSCORE', queue_key, '(' .. now, '(' .. exact(RUNNING_OFFSET), 'WITHSCORES', 'LIMIT', 0, 1)
      if waiting[2] then
        next_due = math.min(next_due or tonumber(waiting[2]), tonumber(waiting[2]))
      elseif #found == 0 and redis.call('ZCARD', queue_key) == 0 then
        redis.call('SREM', BUSY, queue_key)
      end
    end
  end
  if levels[priority] and #levels[priority] > 1 then
    table.sort(due, function(a, b) if a[1] ~= b[1] then return a[1] < b[1] end return a[2] < b[2] end)
  end
  local looked_at = math.min(#due, want)
  want = want - take(due, looked_at)
  if looked_at < #due then break end  -- what is left of this level comes before all below
end
if want == 0 then
  more = 1
  for _, keys in pairs(levels) do
    for _, queue_key in ipairs(keys) do ring_bell(queue_name(queue_key)) end
  end
end
if first[2] then  -- another worker's job may fall to this one then
  next_due = math.min(next_due or tonumber(first[2]), tonumber(first[2]))
end
if next_due then out[2] = math.max(next_due - now, 0) end
out[3] = more
return out
