-- Forgets a reader that has nothing in hand: one that has would lose it. KEYS[1] is the stream. ARGV: 1 the
-- group, 2 the reader's name.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
