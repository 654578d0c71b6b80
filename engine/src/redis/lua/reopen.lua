-- Ends the rebuild of a promo. ARGV: 1 who rebuilds, 2 its last generation, 3 the generation that goes on
-- with it or '', 4 generations whose keys are kept; then, where a sale goes on: its digest as an event tells
-- it, terms in JSON with what is left as their stock, the generations whose units come back to it.
-- Answers 0 if another one rebuilds by now.
if redis.call('HGET', meta_key, 'state') ~= ARGV[1] then return 0 end
local m = load_meta()
-- The last number may be one of a while ago: entries that were lost have had the next ones, and readers may
-- still acknowledge them. The clock is ahead of all of them.
m.n = math.max(m.n, time[1] * 1000000 + time[2])
redis.call('HSET', meta_key, 'n', text(m.n))
local last, heir = ARGV[2], ARGV[3]
redis.pcall('XGROUP', 'CREATE', base .. 's', 'writers', '0', 'MKSTREAM')
redis.call('HSET', meta_key, 'cur', heir == '' and last or heir, 'kept', ARGV[4])
if heir ~= '' then
  local g = load_generation(heir)
  local stock = g.stock
  g.available = 0
  change(g, stock, true)
  save_generation(g)
  for generation in string.gmatch(ARGV[7], '%d+') do
    redis.call('HSET', base .. 'g:' .. generation, 'status', 'closed', 'successor', heir)
  end
  append(m, { event(g, '{"published":{"stock":' .. text(stock) .. ',"terms":' .. ARGV[6] .. ',"digest":'
    .. cjson.encode(ARGV[5]) .. '}}') })
end
if heir == '' then
  -- Over before: nothing of it is sold again, not to a late payment either.
  redis.call('HSET', base .. 'g:' .. last, 'status', 'closed')
end
redis.call('HDEL', meta_key, 'state')
tell('promo ' .. promo)
return 1
