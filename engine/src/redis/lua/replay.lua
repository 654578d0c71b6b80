-- Puts an event that was set aside back at the end of the stream. ARGV: 1 its number.
local m = load_meta()
local letter = redis.call('HGET', base .. 'd', ARGV[1])
if not letter then return 0 end
append(m, { cjson.decode(letter).payload })
redis.call('HDEL', base .. 'd', ARGV[1])
return 1
