-- Writes a part of a promo's keys anew. ARGV: 1 who rebuilds, then commands, each after the number of its
-- words. Answers 0 if another one rebuilds by now.
if redis.call('HGET', meta_key, 'state') ~= ARGV[1] then return 0 end
local at = 2
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
return 1
