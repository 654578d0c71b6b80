-- Spends a challenge. ARGV: 1 its id, 2 when it expires. Answers 1 if this was its first attempt.
-- A little beyond its expiry it is still remembered, should the clock be set back.
local CHALLENGE_KEEP_MS = 60000
local set = redis.call('SET', base .. 'c:' .. ARGV[1], '1', 'NX', 'PXAT',
  text(tonumber(ARGV[2]) + CHALLENGE_KEEP_MS))
return set and 1 or 0
