-- Reserves units for many requests in one step, as one entry of the stream. No two are of one buyer.
-- ARGV: 1 the stream's bound, 2 generation and 3 item of all the tokens, 4 when the first of them expires,
-- 5 the requests, packed: of all of them the buyers, then what each holds in case he did nothing yet but
-- fetch this token, then the amounts, then the events.
-- Answers generation|price|pay within|now|sequence - number|sold out|epoch, then for each request the number
-- of its new reservation, R|<reservation> that an earlier one made, or E|refusal|detail.
-- A buyer's record is read and written whole. Who has ordered and given back so often, some 170 times in one
-- sale, has had his share.
local LINES_BYTES_MAX = 32768
local stream_max = tonumber(ARGV[1])
local generation, item = ARGV[2], ARGV[3]
local buyers, standings, amounts, words = unpack(cmsgpack.unpack(ARGV[5]))
local count = #buyers
local m = load_meta()
local g = m.cur and load_generation(m.cur)
local known = g and redis.call('HMGET', base .. 'h:' .. m.cur, unpack(buyers)) or {}
local holdings = { generation = m.cur, known = {}, changed = {}, stale = {} }

-- A request may also repeat one of a generation before: what its buyer did there.
local before = {}
local has_past = {}
for kept in string.gmatch(m.kept, '%d+') do
  if kept ~= m.cur then
    local there = load_holdings(kept, buyers)
    before[#before + 1] = there
    for _, buyer in ipairs(buyers) do
      if there.known[buyer] then has_past[buyer] = true end
    end
  end
end
local is_kept = g and string.find(',' .. m.kept .. ',', ',' .. m.cur .. ',', 1, true)

-- The answer to a request that was made before, or with a token that was used.
local function repeated(buyer, jti, key, body)
  local by_token, its_generation
  local function is_of_token(made) return made.jti == jti end
  local function is_of_key(made) return made.jti ~= '' and made.key == key end
  local function look(all, load_its)
    local lines = holding(all, buyer).lines
    local by_key = find(lines, is_of_key)
    if by_key then return by_key.body == body and 'R|' .. answer_of(load_its(), by_key) or 'E|key_reused|' end
    if not by_token then by_token, its_generation = find(lines, is_of_token), load_its end
  end
  local answer = is_kept and look(holdings, function() return g end)
  for _, there in ipairs(before) do
    answer = answer or look(there, function() return load_generation(there.generation) end)
  end
  return answer or by_token and 'R|' .. answer_of(its_generation(), by_token)
end

local made = 0
local events, takers, new_words = {}, {}, {}

local function refusal(h, jti, expires_at, amount)
  if generation ~= g.generation or item ~= g.item then return 'E|token_invalid|' end
  if m.state or g.status == 'rebuilding' then return 'E|overloaded|' end
  local closed = in_window(g)
  if closed then return closed end
  if h.jti ~= jti or now >= h.expires_at + LEEWAY_MS or now >= expires_at + LEEWAY_MS then
    return 'E|token_invalid|'
  end
  if amount == 0 then return 'E|bad|amount must be at least 1' end
  if g.per_buyer - h.held < amount or #h.lines > LINES_BYTES_MAX then return 'E|per_buyer|' end
  if g.available == 0 then return 'E|sold_out|' end
  if g.available < amount then return 'E|bad|only ' .. text(g.available) .. ' left: ask for fewer' end
  if m.w + made >= stream_max then return 'E|overloaded|' end
  return nil
end

-- Each reservation takes one number and one change, so these stay as far apart as they are.
local first, ahead = 0, 0
if g then first, ahead = g.last_number + 1, g.sequence - g.last_number end
local common = '|' .. text(ahead) .. '|' .. text(now) .. '|'

-- All the checks, for whoever did more than fetch his token.
local function reserve(i, amount)
  local buyer = buyers[i]
  holdings.known[buyer] = known[i]
  local jti, expires_at = string.match(standings[i], '^0|1|([^|]*)|%d*|(%d+)|')
  local key, body = string.match(words[i], '^[^\t]*\t[^\t]*\t[^\t]*\t([^\t]*)\t(.*)$')
  local answer = repeated(buyer, jti, key, body)
  if answer then return answer end
  if not g then return 'E|not_found|' end
  local h = holding(holdings, buyer)
  answer = refusal(h, jti, tonumber(expires_at), amount)
  if answer then return answer end
  h.held = h.held + amount
  move_to(g, h, '2')
  drop_grant(h)
  g.last_number = g.last_number + 1
  change(g, -amount, true)
  made = made + 1
  events[made], takers[made] = words[i], buyer
  h.lines = h.lines .. line(text(g.last_number), text(ahead), text(now), words[i])
  keep_holding(holdings, buyer, h)
  return g.last_number
end

-- Most requests are of buyers who did nothing yet but fetch this token: what is known of them says exactly
-- that, and only the units and the stream's room are left to check.
local is_open = g and not m.state and not in_window(g) and generation == g.generation and item == g.item
  and now < tonumber(ARGV[4]) + LEEWAY_MS
local answers = { '' }
local last = 0
for i = 1, count do
  local buyer, amount = buyers[i], amounts[i]
  if is_open and known[i] == standings[i] and amount > 0 and amount <= g.per_buyer
    and amount <= g.available and m.w + made < stream_max and not has_past[buyer] then
    -- As `reserve` does, without the steps that change nothing here.
    local number = g.last_number + 1
    g.last_number, g.sequence, g.available = number, g.sequence + 1, g.available - amount
    if g.available == 0 then follow(g, true) end
    g.issued, g.used = g.issued - 1, g.used + 1
    made = made + 1
    events[made], takers[made] = words[i], buyer
    new_words[last + 1] = buyer
    new_words[last + 2] = (amount == 1 and '1' or text(amount)) .. '|2||||\n+' .. text(number) .. common .. words[i]
    last = last + 2
    answers[i + 1] = number
  else
    answers[i + 1] = reserve(i, amount)
  end
end

if made > 0 then
  if g.issued < 0 then broken('fewer places than buyers in them') end
  write_buyers(g, first, takers)
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
