-- End a rebuild: Redis holds everything again, as far as this walk has seen to it.
-- ARGV: walk, run_id of the server when the walk began
-- Returns: 1, or 0 if another walk has begun or Redis was emptied meanwhile.
if redis.call('HGET', EPOCH, 'walk') ~= ARGV[1] then return 0 end
redis.call('HSET', EPOCH, 'run_id', ARGV[2])
redis.call('HDEL', EPOCH, 'walk')
return 1
