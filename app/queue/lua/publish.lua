-- Append events to the stream, in order.
-- ARGV: most events kept (roughly), then the events
-- Returns: nothing.
-- Cost: O(1) an event.
for at = 2, #ARGV do
  redis.call('XADD', EVENTS, 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[at])
end
