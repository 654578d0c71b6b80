-- Steers a promo. ARGV: 1 pause, resume, close or add, 2 units to add. Answers ok or E|refusal|detail.
local UNITS_MAX = 4294967295
local m = load_meta()
local g = m.cur and load_generation(m.cur)
if not g then return 'E|not_found|' end
if ARGV[1] == 'close' then
  g.status = 'closed'
elseif g.status == 'closed' or m.state then
  return 'E|not_allowed|'
elseif ARGV[1] == 'pause' then
  g.status = 'paused'
elseif ARGV[1] == 'resume' then
  g.status = 'open'
else
  local units = tonumber(ARGV[2])
  if units == 0 or g.stock + units > UNITS_MAX then
    return 'E|bad|add at least one unit, and no more than fit'
  end
  g.stock = g.stock + units
  change(g, units, true)
  append(m, { event(g, '{"added":{"stock":' .. ARGV[2] .. '}}') })
end
save_generation(g)
tell('promo ' .. promo)
tell_sold(g)
return 'ok'
