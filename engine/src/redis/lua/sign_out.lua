-- Removes a session. KEYS: its key. ARGV: the buyer whose it must be.
local kept = redis.call('GET', KEYS[1])
if kept and string.match(kept, '^(%-?%d+)|') == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return 1
