-- Tells the first reservation of an order. ARGV: 1 generation, 2 order number.
-- Answers R|<reservation>, or E|not_found|.
local g = load_generation(ARGV[1])
local made = g and reservation(load_holdings(ARGV[1], {}), ARGV[2])
-- Its number may be that of a late payment's reservation for another order.
if not made or made.order ~= ARGV[2] then return 'E|not_found|' end
return 'R|' .. answer_of(g, made)
