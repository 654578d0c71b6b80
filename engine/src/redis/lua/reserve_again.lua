-- Reserves again for an order whose payment came late.
-- ARGV: 1 generation, 2 order number, 3 the payment's id in JSON.
-- Answers R|<reservation>, or E|refusal|.
local m = load_meta()
local generation, order, payment = ARGV[1], ARGV[2], ARGV[3]
local g = load_generation(generation)
local holdings = load_holdings(generation, {})
local first, buyer = reservation(holdings, order)
if not g or not first or first.order ~= order then return 'E|not_found|' end
local h = holding(holdings, buyer)
local function is_late(made) return made.jti == '' and made.order == order end
local asked = find(h.lines, function(made) return is_late(made) and made.key == payment end)
if asked then return 'R|' .. answer_of(g, asked) end
local held = find(h.lines, function(made) return is_late(made) and made.is_held end)
if first.is_held or held then return 'E|not_allowed|' end
if m.state then return 'E|overloaded|' end
local amount = tonumber(first.amount)
-- What a closed promo or an earlier publishing did not sell went back to the shop, and may have been
-- published again.
if m.cur ~= generation or g.status == 'closed' or g.available < amount then return 'E|sold_out|' end
if g.per_buyer - h.held < amount then return 'E|per_buyer|' end
h.held = h.held + amount
g.last_number = g.last_number + 1
change(g, -amount, true)
local number, ahead = g.last_number, g.sequence - g.last_number
local words = first.buyer .. '\t' .. first.amount .. '\t\t' .. payment .. '\t' .. order
h.lines = h.lines .. line(text(number), text(ahead), text(now), words)
keep_holding(holdings, buyer, h)
write_buyers(g, number, { buyer })
save_holdings(holdings)
save_generation(g)
append(m, { words }, reserved_header(g, number, ahead))
tell_sold(g)
return 'R|' .. answer_of(g, find(h.lines, function(made) return made.number == text(number) end))
