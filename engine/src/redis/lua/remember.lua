-- Remembers a copy, unless it was forgotten just now. KEYS: the copy, the mark of its having been forgotten.
-- ARGV: the copy, for how many ms.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
