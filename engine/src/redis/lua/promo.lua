-- Tells a generation. ARGV: 1 which, or '' for the current one. Answers the time and its fields, or {}.
local m = load_meta()
local generation = ARGV[1] == '' and m.cur or ARGV[1]
if not generation then return {} end
local fields = redis.call('HMGET', base .. 'g:' .. generation, 'terms', 'stock', 'status', 'available',
  'sold_out', 'sold_epoch', 'sequence', 'issued', 'used')
if not fields[1] then return {} end
if m.state and fields[3] ~= 'closed' and generation == m.cur then fields[3] = 'rebuilding' end
return { text(now), generation, unpack(fields) }
