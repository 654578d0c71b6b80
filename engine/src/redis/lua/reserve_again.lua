-- Reserves again for an order whose payment came late.
-- ARGV: 1 generation, 2 order number, 3 the payment's id in JSON.
-- Answers R|generation|number|<record>, or E|refusal|.
local m = load_meta()
local generation, order, payment = ARGV[1], ARGV[2], ARGV[3]
local reservations = base .. 'r:' .. generation
local kept = redis.call('HGET', reservations, order)
if not kept or string.match(kept, '^(%d+)|') ~= order then return 'E|not_found|' end
local asked = redis.call('HGET', reservations, 'p' .. order .. ':' .. payment)
if asked then
  return 'R|' .. generation .. '|' .. asked .. '|' .. redis.call('HGET', reservations, asked)
end
local _, buyer, item, amount, price, _, pay_within, _, is_released = string.match(kept, RECORD)
if is_released ~= '1' or redis.call('HEXISTS', reservations, 'h' .. order) == 1 then return 'E|not_allowed|' end
local g = load_generation(generation)
if not g then broken('an order has no generation') end
if m.state then return 'E|overloaded|' end
-- What a closed promo or an earlier publishing did not sell went back to the shop, and may have been
-- published again.
if m.cur ~= generation or g.status == 'closed' or g.available < tonumber(amount) then return 'E|sold_out|' end
local holdings = load_holdings(generation, { buyer })
local h = holding(holdings, buyer)
if g.per_buyer - h.held < tonumber(amount) then return 'E|per_buyer|' end
h.held = h.held + tonumber(amount)
keep_holding(holdings, buyer, h)
g.last_number = g.last_number + 1
change(g, -tonumber(amount), true)
local number = text(g.last_number)
local record = order .. '|' .. buyer .. '|' .. item .. '|' .. amount .. '|' .. price .. '|' .. text(now) .. '|'
  .. pay_within .. '|' .. text(g.sequence) .. '|0'
redis.call('HSET', reservations, number, record, 'h' .. order, number, 'p' .. order .. ':' .. payment, number)
save_holdings(holdings)
save_generation(g)
-- Written short, as the reservations of requests are, with order and payment behind.
append(m, { '[' .. text(g.sequence) .. ',' .. number .. ',' .. buyer .. ',' .. amount .. ',' .. order .. ','
  .. payment .. ']' }, '[' .. promo .. ',' .. generation .. ',' .. item .. ',' .. price .. ',' .. pay_within
  .. ',' .. text(now) .. ']')
tell_sold(g)
return 'R|' .. generation .. '|' .. number .. '|' .. record
