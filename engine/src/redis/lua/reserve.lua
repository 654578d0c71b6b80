-- Reserves units for many requests in one step, as one entry of the stream.
-- ARGV: 1 the stream's bound; then eight words a request: buyer, generation, item, jti, expires_at of the
-- token, amount, key and body in JSON.
-- Answers a line for each: R|generation|number|<record>|repeated|sold out|epoch, or E|refusal|detail.
local PER_REQUEST = 8
local stream_max = tonumber(ARGV[1])
local count = (#ARGV - 1) / PER_REQUEST
local m = load_meta()
local g = m.cur and load_generation(m.cur)

local lookups, buyers = {}, {}
for i = 0, count - 1 do
  local at = 2 + i * PER_REQUEST
  lookups[2 * i + 1] = 'k' .. ARGV[at] .. ':' .. ARGV[at + 6]
  lookups[2 * i + 2] = 't' .. ARGV[at] .. ':' .. ARGV[at + 3]
  buyers[i + 1] = ARGV[at]
end
local known = {}
for generation in string.gmatch(m.kept, '%d+') do
  for first = 1, #lookups, WORDS_MAX do
    local last = math.min(first + WORDS_MAX - 1, #lookups)
    local v = redis.call('HMGET', base .. 'k:' .. generation, unpack(lookups, first, last))
    for i = first, last do
      if v[i - first + 1] then known[lookups[i]] = v[i - first + 1] end
    end
  end
end
local holdings = g and load_holdings(m.cur, buyers)
local records, record_words, keys, events = {}, {}, {}, {}
local now_text = text(now)

local function told(generation, number, record, repeated)
  return 'R|' .. generation .. '|' .. number .. '|' .. record .. '|' .. repeated .. '|'
    .. ((g and g.sold_out) and '1' or '0') .. '|' .. (g and text(g.sold_epoch) or '0')
end

local function found(value)
  local generation, number = string.match(value, '^(%d+):(%d+):')
  local place = generation .. ':' .. number
  local record = records[place]
  if not record then
    record = redis.call('HGET', base .. 'r:' .. generation, number)
    if not record then broken('order ' .. place .. ' is missing') end
    records[place] = record
  end
  return told(generation, number, record, '1')
end

local function refusal(h, generation, item, jti, expires_at, amount)
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

local answers = {}
for i = 0, count - 1 do
  local at = 2 + i * PER_REQUEST
  local buyer, generation, item, jti = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local amount, key, body = tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7]
  local key_name, token_name = lookups[2 * i + 1], lookups[2 * i + 2]
  local by_key, by_token = known[key_name], known[token_name]
  local answer
  if by_key then
    answer = string.match(by_key, '^%d+:%d+:(.*)$') == body and found(by_key) or 'E|key_reused|'
  elseif by_token then
    answer = found(by_token)
  elseif not g then
    answer = 'E|not_found|'
  else
    local h = holding(holdings, buyer)
    answer = refusal(h, generation, item, jti, tonumber(ARGV[at + 4]), amount)
    if not answer then
      h.held = h.held + amount
      move_to(g, h, '2')
      drop_grant(h)
      keep_holding(holdings, buyer, h)
      g.last_number = g.last_number + 1
      change(g, -amount, true)
      local number, sequence = text(g.last_number), text(g.sequence)
      local record = number .. '|' .. buyer .. '|' .. g.item .. '|' .. ARGV[at + 5] .. '|' .. g.price .. '|'
        .. now_text .. '|' .. g.pay_within .. '|' .. sequence .. '|0'
      records[g.generation .. ':' .. number] = record
      record_words[#record_words + 1] = number
      record_words[#record_words + 1] = record
      local value = g.generation .. ':' .. number .. ':' .. body
      known[key_name], known[token_name] = value, value
      local last = #keys
      keys[last + 1], keys[last + 2], keys[last + 3], keys[last + 4] = key_name, value, token_name, value
      events[#events + 1] = '[' .. sequence .. ',' .. number .. ',' .. buyer .. ',' .. ARGV[at + 5] .. ','
        .. key .. ',' .. body .. ',"' .. jti .. '"]'
      answer = told(g.generation, number, record, '0')
    end
  end
  answers[#answers + 1] = answer
end

if #events > 0 then
  call_many('HSET', base .. 'r:' .. g.generation, record_words)
  call_many('HSET', base .. 'k:' .. g.generation, keys)
  save_holdings(holdings)
  save_generation(g)
  append(m, events, '[' .. promo .. ',' .. g.generation .. ',' .. g.item .. ',' .. g.price .. ','
    .. g.pay_within .. ',' .. now_text .. ']')
  tell_sold(g)
end
return answers
