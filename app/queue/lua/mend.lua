-- Move keys of the wrong type out of the way: one of them would fail every script that touches it.
-- ARGV: ttl_s of what is moved, most that is kept in quarantine, then per key: name, the type it must be
-- Returns: the names of those that were wrong.
-- Cost: O(1) a key.
local wrong = {}
for at = 3, #ARGV, 2 do
  local key, kind = ARGV[at], redis.call('TYPE', ARGV[at])['ok']
  if kind ~= 'none' and kind ~= ARGV[at + 1] then
    redis.call('RENAME', key, ASIDE .. key)
    redis.call('EXPIRE', ASIDE .. key, ARGV[1])
    wrong[#wrong + 1] = key
  end
end
for _, key in ipairs(wrong) do  -- now that the quarantine itself is right
  if redis.call('HLEN', QUARANTINE) < tonumber(ARGV[2]) then redis.call('HSET', QUARANTINE, key, 'wrong type|' .. ASIDE .. key) end
  redis.call('HINCRBY', TOTALS, 'quarantined|wrong type', 1)
end
return wrong
