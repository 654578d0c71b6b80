-- Records a session. KEYS: its key. ARGV: buyer, expires_at in ms. Answers 0 if its id is another buyer's.
local kept = redis.call('GET', KEYS[1])
if kept and string.match(kept, '^(%-?%d+)|') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2], 'PXAT', ARGV[2])
return 1
