-- Upkeep that follows the clock. ARGV: 1 most places that are taken back in one call.
-- Answers 1 if another call would find more to do.
local max = tonumber(ARGV[1])
local m = load_meta()
local more, kept = 0, {}
for generation in string.gmatch(m.kept, '%d+') do
  local g = load_generation(generation)
  local holdings = load_holdings(generation, {})
  local taken, is_found = take_back(g, holdings, max)
  if taken >= max then more = 1 end
  follow(g, generation == m.cur)
  if is_found or g.is_told then
    save_holdings(holdings)
    save_generation(g)
    tell_sold(g)
  end
  -- Past their keeping idempotency keys and token ids are not looked for any more; the reservations stay.
  if now < g.forget_at or g.issued > 0 then kept[#kept + 1] = generation end
end
local left = table.concat(kept, ',')
if left ~= m.kept then redis.call('HSET', meta_key, 'kept', left) end
return more
