-- Takes entries off the stream: the ledger has them. ARGV: their ids.
local gone = 0
for i = 1, #ARGV do
  redis.call('XACK', base .. 's', 'writers', ARGV[i])
  if redis.call('XDEL', base .. 's', ARGV[i]) == 1 then
    gone = gone + tonumber(string.match(ARGV[i], '%-(%d+)$'))
  end
end
if gone > 0 then redis.call('HINCRBY', meta_key, 'w', -gone) end
return gone
