-- Lets many buyers through the door in one step.
-- ARGV: four words a request: buyer, jti, challenge or '', expires_at of the challenge.
-- Answers a line for each: A|generation|item|jti|issued_at|expires_at|amount_max, or E|refusal|detail.
local PER_REQUEST = 4
local TAKE_BACK_MAX = 16
local CHALLENGE_KEEP_MS = 60000
local count = #ARGV / PER_REQUEST
local m = load_meta()
local g = m.cur and load_generation(m.cur)
local answers = {}
if not g then
  for i = 1, count do answers[i] = 'E|not_found|' end
  return answers
end

local buyers, challenges, spent = {}, {}, {}
for i = 0, count - 1 do
  buyers[i + 1] = ARGV[1 + i * PER_REQUEST]
  local id = ARGV[3 + i * PER_REQUEST]
  if id ~= '' then challenges[#challenges + 1] = base .. 'c:' .. id end
end
for first = 1, #challenges, WORDS_MAX do
  local last = math.min(first + WORDS_MAX - 1, #challenges)
  local v = redis.call('MGET', unpack(challenges, first, last))
  for i = first, last do spent[challenges[i]] = v[i - first + 1] and true or nil end
end
local holdings = load_holdings(m.cur, buyers)
local spend = {}
local is_changed = false

local function whole(at) return math.floor(at / 1000) * 1000 end

local function told(h)
  return 'A|' .. g.generation .. '|' .. g.item .. '|' .. h.jti .. '|' .. h.issued_at .. '|'
    .. text(h.expires_at) .. '|' .. h.amount_max
end

local function enter(buyer, jti, challenge, challenge_ends)
  local closed = in_window(g)
  if m.state then closed = closed or 'E|paused|' end
  if closed then return closed end
  if g.available == 0 then return 'E|sold_out|' end
  local h = holding(holdings, buyer)
  if h.jti ~= '' and now < h.expires_at then return told(h) end
  local left = g.per_buyer - h.held
  if left <= 0 then return 'E|per_buyer|' end
  -- Whoever has a place gets his next token on it; only a new place must be free.
  if h.place == '0' and g.issued + g.used >= g.stock * g.door then
    local taken, is_found = take_back(g, holdings, TAKE_BACK_MAX)
    is_changed = is_changed or is_found
    if taken == 0 then return 'E|door_full|' end
  end
  if challenge ~= '' then
    local name = base .. 'c:' .. challenge
    if now >= challenge_ends or spent[name] then return 'E|challenge_failed|' end
    spent[name] = true
    spend[#spend + 1] = { name, challenge_ends }
  end
  h = holding(holdings, buyer)
  h.jti, h.issued_at = jti, text(whole(now))
  h.expires_at = whole(math.min(now + g.token_ttl, g.ends_at))
  h.amount_max = text(left)
  move_to(g, h, h.place == '2' and '2' or '1')
  keep_holding(holdings, buyer, h)
  is_changed = true
  return told(h)
end

for i = 0, count - 1 do
  local at = 1 + i * PER_REQUEST
  answers[i + 1] = enter(ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3]))
end
for _, each in ipairs(spend) do
  redis.call('SET', each[1], '1', 'PXAT', text(each[2] + CHALLENGE_KEEP_MS))
end
if is_changed then
  save_holdings(holdings)
  save_generation(g)
end
return answers
