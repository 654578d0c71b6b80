-- Reserves units for many requests in one step, as one entry of the stream.
-- ARGV: 1 the stream's bound, 2 generation and 3 item of all the tokens, 4 when the first of them expires;
-- then four words a request: buyer, what he holds in case he did nothing yet but fetch this token, amount,
-- and the event.
-- Answers generation|price|pay within|now|sequence - number|sold out|epoch, then for each request the number
-- of its new reservation, R|<reservation> that an earlier one made, or E|refusal|detail.
local PER_REQUEST, FIRST = 4, 5
local stream_max = tonumber(ARGV[1])
local generation, item = ARGV[2], ARGV[3]
local m = load_meta()
local g = m.cur and load_generation(m.cur)

local buyers = {}
for at = FIRST, #ARGV, PER_REQUEST do buyers[#buyers + 1] = ARGV[at] end
local holdings = g and load_holdings(m.cur, buyers)
local known = g and holdings.known

-- Requests are also repeated of a generation before: what the buyers did there.
local before, is_known_before = {}, {}
for kept in string.gmatch(m.kept, '%d+') do
  if kept ~= m.cur then
    local there = load_holdings(kept, buyers)
    before[#before + 1] = there
    for _, buyer in ipairs(buyers) do
      if there.known[buyer] then is_known_before[buyer] = true end
    end
  end
end
local is_kept = g and string.find(',' .. m.kept .. ',', ',' .. m.cur .. ',', 1, true)

local function repeated(buyer, jti, key, body)
  if not is_kept and #before == 0 then return nil end
  local by_token, its_generation
  local function of_token(made) return made.jti == jti end
  local function of_key(made) return made.jti ~= '' and made.key == key end
  local function look(all, its)
    local lines = holding(all, buyer).lines
    local by_key = find(lines, of_key)
    if by_key then return by_key.body == body and 'R|' .. answer_of(its(), by_key) or 'E|key_reused|' end
    local made = not by_token and find(lines, of_token)
    if made then by_token, its_generation = made, its end
  end
  local answer = is_kept and look(holdings, function() return g end)
  for _, there in ipairs(before) do
    answer = answer or look(there, function() return load_generation(there.generation) end)
  end
  return answer or (by_token and 'R|' .. answer_of(its_generation(), by_token))
end

local events, rows, new_words = {}, {}, {}

local function refusal(h, jti, expires_at, amount)
  if generation ~= g.generation or item ~= g.item then return 'E|token_invalid|' end
  if m.state or g.status == 'rebuilding' then return 'E|overloaded|' end
  local closed = in_window(g)
  if closed then return closed end
  if h.jti ~= jti or now >= h.expires_at + LEEWAY_MS or now >= expires_at + LEEWAY_MS then
    return 'E|token_invalid|'
  end
  if amount == 0 then return 'E|bad|amount must be at least 1' end
  if g.per_buyer - h.held < amount then return 'E|per_buyer|' end
  if g.available == 0 then return 'E|sold_out|' end
  if g.available < amount then return 'E|bad|only ' .. text(g.available) .. ' left: ask for fewer' end
  if m.w + #events >= stream_max then return 'E|overloaded|' end
  return nil
end

-- Each reservation takes one number and one change, so these stay as far apart as they are.
local first, ahead = 0, 0
if g then first, ahead = g.last_number + 1, g.sequence - g.last_number end
local infix = g and '|' .. text(ahead) .. '|' .. text(now) .. '|'

local function take(buyer, amount, words)
  g.last_number = g.last_number + 1
  change(g, -amount, true)
  events[#events + 1] = words
  rows[#rows + 1] = buyer
  return g.last_number
end

-- The whole of the checks, for whoever did more than fetch his token.
local function reserve(buyer, standing, amount, words)
  local jti, expires_at = string.match(standing, '^0|1|([^|]*)|%d*|(%d+)|')
  local key, body = string.match(words, '^[^\t]*\t[^\t]*\t[^\t]*\t([^\t]*)\t(.*)$')
  local answer = repeated(buyer, jti, key, body)
  if answer then return answer end
  if not g then return 'E|not_found|' end
  local h = holding(holdings, buyer)
  answer = refusal(h, jti, tonumber(expires_at), amount)
  if answer then return answer end
  h.held = h.held + amount
  move_to(g, h, '2')
  drop_grant(h)
  local number = take(buyer, amount, words)
  h.lines = h.lines .. '\n+' .. text(number) .. infix .. words
  keep_holding(holdings, buyer, h)
  return number
end

-- Most requests are of buyers who did nothing yet but fetch this token: what is known of them says exactly
-- that, and only the units and the stream's room are left to check.
local is_open = g and not m.state and not in_window(g) and generation == g.generation and item == g.item
  and now < tonumber(ARGV[4]) + LEEWAY_MS

local answers = { '' }
local at = FIRST
for i = 1, #buyers do
  local buyer, amount = buyers[i], tonumber(ARGV[at + 2])
  if is_open and known[buyer] == ARGV[at + 1] and amount > 0 and amount <= g.per_buyer
    and amount <= g.available and m.w + #events < stream_max and not is_known_before[buyer] then
    local number = take(buyer, amount, ARGV[at + 3])
    g.issued, g.used = g.issued - 1, g.used + 1
    local kept = ARGV[at + 2] .. '|2||||\n+' .. number .. infix .. ARGV[at + 3]
    known[buyer] = kept
    local last = #new_words
    new_words[last + 1], new_words[last + 2] = buyer, kept
    answers[i + 1] = number
  else
    answers[i + 1] = reserve(buyer, ARGV[at + 1], amount, ARGV[at + 3])
  end
  at = at + PER_REQUEST
end

if #events > 0 then
  if g.issued < 0 then broken('fewer places than buyers in them') end
  write_buyers(g, first, rows)
  call_many('HSET', base .. 'h:' .. g.generation, new_words)
  save_holdings(holdings)
  save_generation(g)
  append(m, events, reserved_header(g, first, ahead))
  tell_sold(g)
end
if g then
  answers[1] = g.generation .. '|' .. g.price .. '|' .. g.pay_within .. '|' .. text(now) .. '|' .. text(ahead)
    .. '|' .. (g.sold_out and '1' or '0') .. '|' .. text(g.sold_epoch)
end
return answers
