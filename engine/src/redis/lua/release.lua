-- Gives the units of a reservation back. ARGV: 1 generation, 2 order number, 3 reservation number.
-- Answers 1 if this call did, 0 if an earlier one had, or E|not_found|.
local m = load_meta()
local generation, order, number = ARGV[1], ARGV[2], ARGV[3]
local holdings = load_holdings(generation, {})
local made, buyer = reservation(holdings, number)
if not made or made.order ~= order then return 'E|not_found|' end
if not made.is_held then return '0' end
local g = load_generation(generation)
if not g then broken('a reservation has no generation') end
local amount = tonumber(made.amount)
local h = holding(holdings, buyer)
h.held = h.held - amount
if h.held < 0 then broken('a buyer holds less than he ordered') end
if h.held == 0 and h.place == '2' then
  -- Nothing was bought with the place: it goes back, unless a token still stands on it.
  if h.jti ~= '' and now < h.expires_at + LEEWAY_MS then
    move_to(g, h, '1')
  else
    move_to(g, h, '0')
    drop_grant(h)
  end
end
h.lines = string.gsub(h.lines, '\n%+' .. number .. '|', '\n-' .. number .. '|')
keep_holding(holdings, buyer, h)
change(g, amount, m.cur == generation)
local events = { event(g, '{"released":{"release":{"order":' .. order_words(generation, order)
  .. ',"number":' .. number .. '},"amount":' .. made.amount .. '}}') }
-- After a rebuild the sale goes on in a later generation: what comes back is sold there.
local heir = g.successor and load_generation(g.successor)
if heir and heir.generation == m.cur and heir.status ~= 'closed' then
  heir.stock = heir.stock + amount
  change(heir, amount, true)
  events[2] = event(heir, '{"added":{"stock":' .. made.amount .. '}}')
  -- He may have as many again.
  local there = load_holdings(heir.generation, { buyer })
  local held = holding(there, buyer)
  held.held = math.max(0, held.held - amount)
  keep_holding(there, buyer, held)
  save_holdings(there)
  save_generation(heir)
end
save_holdings(holdings)
save_generation(g)
append(m, events)
tell_sold(g)
if heir then tell_sold(heir) end
return '1'
