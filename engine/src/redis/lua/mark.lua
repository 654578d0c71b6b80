-- Marks a promo as being rebuilt. ARGV: 1 who rebuilds, 2 his number: it rises with each who does, and stays
-- when the mark goes, so that one who was replaced and does not know it marks nothing. Answers 0 then.
if tonumber(redis.call('HGET', meta_key, 'fence') or '0') > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', meta_key, 'state', ARGV[1], 'fence', ARGV[2])
return 1
