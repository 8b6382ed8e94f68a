-- Begin to rebuild: only pages that bear this walk's nonce count from here on. Pauses stand before any job does.
-- ARGV: lease_ms, installation, counter, walk, then the names of the paused queues
-- Returns: nothing.
-- Cost: O(leases + paused queues).
local now = now_ms()
redis.call('DEL', EPOCH, PAUSED)
redis.call('HSET', EPOCH, 'installation', ARGV[2], 'counter', ARGV[3], 'walk', ARGV[4])
for at = 5, #ARGV do redis.call('SADD', PAUSED, ARGV[at]) end
give_grace(now, tonumber(ARGV[1]))
redis.call('SET', CLOCK, exact(now))
