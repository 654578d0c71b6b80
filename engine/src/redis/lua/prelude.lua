-- What every script of a promo begins with. KEYS[1] is the promo's meta key, `<prefix>:{<promo>}:m`; the
-- promo's other keys share its hash tag and follow from it:
--
--   m            hash: cur, kept (generations whose idempotency keys are kept), n (number of the last
--                event), w (events that wait in the stream), state (who rebuilds it, while that lasts),
--                fence (the number of who rebuilt it last)
--   g:<gen>      hash: terms and counts of a generation
--   h:<gen>      hash: buyer -> all that is known of him, so that a request costs one read and one write:
--                first what he holds, held|place|jti|issued_at|expires_at|amount_max, then a line for each
--                of his reservations, the state + (holds units) or - (released) before
--                <number>|<sequence - number>|<made at>|<event>
--   x:<gen>      sorted set: buyers whose place is issued, by the expiry of its token; who used his since
--                stays in it until somebody looks for places that can be taken back
--   r:<gen>      string: whose reservation each number is, BUYER_BYTES a number
--   c:<id>       a challenge that was spent
--   s            stream of order events, its entries named <number of the last event>-<how many events>
--   d            hash: events that were set aside
--
-- A buyer is written with leading zeros, BUYER_BYTES long. The event of a reservation, as the stream has it
-- too, has five parts with tabs between: buyer, amount, jti, then idempotency key and digest of the request,
-- both in JSON, which has no raw tab. That of a late payment has no jti, the payment in JSON as its key, and
-- its order's number as its digest.
--
-- Nothing is written before everything was decided, so a script that fails has changed nothing. Numbers
-- that only pass through stay text: a Lua number has 53 bits.
local meta_key = KEYS[1]
local base = string.sub(meta_key, 1, -2)
local promo = string.match(base, '{(%-?%d+)}')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local LEEWAY_MS = 2000
local REOPEN_EVERY_MS = 1000
-- Longest list of words in one command; Lua's stack has a bound.
local WORDS_MAX = 1000

local BUYER_BYTES = 20

local format = string.format
local function text(number) return format('%d', number) end

local function load_meta()
  local v = redis.call('HMGET', meta_key, 'cur', 'kept', 'n', 'w', 'state')
  return { cur = v[1], kept = v[2] or '', n = tonumber(v[3] or '0'), w = tonumber(v[4] or '0'),
           state = v[5] }
end

local FIELDS = { 'item', 'starts_at', 'ends_at', 'price', 'stock', 'door', 'per_buyer', 'pay_within',
  'token_ttl', 'status', 'available', 'sold_out', 'sold_epoch', 'sequence', 'issued', 'used',
  'last_number', 'reopened_at', 'forget_at', 'successor' }

local function load_generation(generation)
  local v = redis.call('HMGET', base .. 'g:' .. generation, unpack(FIELDS))
  if not v[1] then return nil end
  return { generation = generation, item = v[1], starts_at = tonumber(v[2]), ends_at = tonumber(v[3]),
    price = v[4], stock = tonumber(v[5]), door = tonumber(v[6]), per_buyer = tonumber(v[7]),
    pay_within = v[8], token_ttl = tonumber(v[9]), status = v[10], available = tonumber(v[11]),
    sold_out = v[12] == '1', sold_epoch = tonumber(v[13]), sequence = tonumber(v[14]),
    issued = tonumber(v[15]), used = tonumber(v[16]), last_number = tonumber(v[17]),
    reopened_at = tonumber(v[18] or ''), forget_at = tonumber(v[19]), successor = v[20] }
end

local function save_generation(g)
  redis.call('HSET', base .. 'g:' .. g.generation, 'stock', text(g.stock), 'status', g.status,
    'available', text(g.available), 'sold_out', g.sold_out and '1' or '0', 'sold_epoch',
    text(g.sold_epoch), 'sequence', text(g.sequence), 'issued', text(g.issued), 'used', text(g.used),
    'last_number', text(g.last_number))
  if g.reopened_at then
    redis.call('HSET', base .. 'g:' .. g.generation, 'reopened_at', text(g.reopened_at))
  end
end

local function broken(words) error('BROKEN ' .. words, 0) end

-- Lets sold_out follow available: at once when nothing is left, at most once a second when something
-- came back. An earlier generation is no longer told to anyone.
local function follow(g, is_current)
  local is_sold_out = g.available == 0
  if not is_current or is_sold_out == g.sold_out then return end
  if not is_sold_out then
    if g.reopened_at and math.abs(now - g.reopened_at) < REOPEN_EVERY_MS then return end
    g.reopened_at = now
  end
  g.sold_out = is_sold_out
  g.sold_epoch = g.sold_epoch + 1
  g.is_told = true
end

-- Applies a change of available stock and takes its sequence number.
local function change(g, delta, is_current)
  local available = g.available + delta
  if available < 0 or available > g.stock then broken(text(available) .. ' units would be available') end
  g.available = available
  g.sequence = g.sequence + 1
  follow(g, is_current)
end

-- The words of an event up to its change.
local function event(g, words)
  return '{"promo":' .. promo .. ',"generation":' .. g.generation .. ',"sequence":' .. text(g.sequence)
    .. ',"at":' .. text(now) .. ',"change":' .. words .. '}'
end

-- The channel on which nodes are told.
local function channel(name) return string.match(base, '^(.-):{') .. ':' .. name end

local function tell(words) redis.call('PUBLISH', channel('signals'), words) end

local function tell_sold(g)
  if g.is_told then
    tell('sold ' .. promo .. ' ' .. g.generation .. ' ' .. text(g.sold_epoch) .. ' '
      .. (g.sold_out and '1' or '0'))
  end
end

-- Appends events as one entry. `header` holds what those written short have in common.
local function append(m, events, header)
  local count = #events
  if count == 0 then return end
  -- A stream that is new, or was lost, counts on from the clock, so that no number comes twice.
  if m.n == 0 then m.n = time[1] * 1000000 + time[2] end
  m.n = m.n + count
  m.w = m.w + count
  redis.call('XADD', base .. 's', text(m.n) .. '-' .. count, 'h', header or '', 'e',
    table.concat(events, '\n'))
  redis.call('HSET', meta_key, 'n', text(m.n), 'w', text(m.w))
  redis.call('PUBLISH', channel('events'), promo)
end

-- What buyers hold in a generation, read ahead and written back at the end.
local function load_holdings(generation, buyers)
  local all = { generation = generation, known = {}, changed = {}, stale = {} }
  for first = 1, #buyers, WORDS_MAX do
    local last = math.min(first + WORDS_MAX - 1, #buyers)
    local v = redis.call('HMGET', base .. 'h:' .. generation, unpack(buyers, first, last))
    for i = first, last do all.known[buyers[i]] = v[i - first + 1] end
  end
  return all
end

-- place: '0' none, '1' issued, '2' used; jti '' where no token can still be used; lines: his reservations.
local function holding(all, buyer)
  local kept = all.known[buyer]
  if kept == nil then
    kept = redis.call('HGET', base .. 'h:' .. all.generation, buyer)
    all.known[buyer] = kept
  end
  if not kept then return { held = 0, place = '0', jti = '', lines = '' } end
  if type(kept) == 'table' then return kept end
  local held, place, jti, issued_at, expires_at, amount_max, lines =
    string.match(kept, '^(%d+)|(%d)|([^|]*)|(%d*)|(%d*)|(%d*)(.*)$')
  return { held = tonumber(held), place = place, jti = jti, issued_at = issued_at,
    expires_at = tonumber(expires_at), amount_max = amount_max, lines = lines }
end

-- Gives a buyer another place, counted in the generation.
local function move_to(g, h, place)
  if h.place == '1' then g.issued = g.issued - 1 elseif h.place == '2' then g.used = g.used - 1 end
  if place == '1' then g.issued = g.issued + 1 elseif place == '2' then g.used = g.used + 1 end
  if g.issued < 0 or g.used < 0 then broken('fewer places than buyers in them') end
  h.place = place
end

local function keep_holding(all, buyer, h)
  all.known[buyer] = h
  all.changed[buyer] = true
end

local function drop_grant(h)
  h.jti, h.issued_at, h.expires_at, h.amount_max = '', nil, nil, nil
end

local function call_many(command, key, words)
  for first = 1, #words, WORDS_MAX do
    redis.call(command, key, unpack(words, first, math.min(first + WORDS_MAX - 1, #words)))
  end
end

local function save_holdings(all)
  local set, del, zadd, zrem = {}, {}, {}, all.stale
  for buyer in pairs(all.changed) do
    local h = all.known[buyer]
    if h.held == 0 and h.place == '0' and h.lines == '' then
      del[#del + 1] = buyer
    else
      set[#set + 1] = buyer
      set[#set + 1] = text(h.held) .. '|' .. h.place .. '|' .. h.jti .. '|' .. (h.issued_at or '') .. '|'
        .. (h.expires_at and text(h.expires_at) or '') .. '|' .. (h.amount_max or '') .. h.lines
    end
    if h.place == '1' then
      zadd[#zadd + 1] = text(h.expires_at)
      zadd[#zadd + 1] = buyer
    elseif h.place == '0' then
      zrem[#zrem + 1] = buyer
    end
  end
  call_many('HSET', base .. 'h:' .. all.generation, set)
  call_many('HDEL', base .. 'h:' .. all.generation, del)
  call_many('ZADD', base .. 'x:' .. all.generation, zadd)
  call_many('ZREM', base .. 'x:' .. all.generation, zrem)
end

-- Takes back up to `max` places whose tokens expired unused; returns how many, and whether there is anything
-- to save. Those that were used since are taken off the list on the way.
local PAGES_MAX = 64
local function take_back(g, all, max)
  local count, offset = 0, 0
  for _ = 1, PAGES_MAX do
    local buyers = redis.call('ZRANGEBYSCORE', base .. 'x:' .. g.generation, '-inf', text(now - LEEWAY_MS),
      'LIMIT', offset, max)
    for _, buyer in ipairs(buyers) do
      local h = holding(all, buyer)
      if h.place ~= '1' then
        all.stale[#all.stale + 1] = buyer
      -- One that this very call renewed is not expired any more.
      elseif now >= h.expires_at + LEEWAY_MS then
        move_to(g, h, '0')
        drop_grant(h)
        keep_holding(all, buyer, h)
        count = count + 1
      end
    end
    offset = offset + #buyers
    if count >= max or #buyers < max then break end
  end
  return count, count > 0 or #all.stale > 0
end

-- The refusal that keeps a promo from selling now, or nil.
local function in_window(g)
  if g.status == 'closed' or now >= g.ends_at then return 'E|not_open|' end
  if g.status ~= 'open' then return 'E|paused|' end
  if now < g.starts_at then return 'E|not_open|' .. text(math.ceil((g.starts_at - now) / 1000)) end
  return nil
end

local RESERVATION = '\n([+-])(%d+)|(%-?%d+)|(%-?%d+)|((%-?%d+)\t(%d+)\t([^\t\n]*)\t([^\t\n]*)\t([^\n]*))'

-- The first reservation in a buyer's lines that `is_wanted` accepts, or nil.
local function find(lines, is_wanted)
  for state, number, ahead, made_at, words, buyer, amount, jti, key, body in string.gmatch(lines, RESERVATION) do
    local made = { is_held = state == '+', number = number, ahead = ahead, made_at = made_at, words = words,
      buyer = buyer, amount = amount, jti = jti, key = key, body = body }
    -- That of a late payment is one of another order's.
    made.order = jti == '' and body or number
    if is_wanted(made) then return made end
  end
end

-- The line of a reservation that has a number by now.
local function line(number, ahead, made_at, words)
  return '\n+' .. number .. '|' .. ahead .. '|' .. made_at .. '|' .. words
end

-- A reservation by its number, and its buyer's word; nil if there is none.
local function reservation(all, number)
  local at = (tonumber(number) - 1) * BUYER_BYTES
  if at < 0 then return nil end
  local buyer = redis.call('GETRANGE', base .. 'r:' .. all.generation, text(at), text(at + BUYER_BYTES - 1))
  -- Numbers that a rebuild left out are filled with zero bytes.
  if not string.find(buyer, '^%-?%d+$') then return nil end
  local h = holding(all, buyer)
  return find(h.lines, function(made) return made.number == number end), buyer
end

-- How a reservation is answered: generation, number, order number, buyer, item, amount, price, made at,
-- pay within, sequence.
local function answer_of(g, made)
  return g.generation .. '|' .. made.number .. '|' .. made.order .. '|' .. made.buyer .. '|' .. g.item .. '|'
    .. made.amount .. '|' .. g.price .. '|' .. made.made_at .. '|' .. g.pay_within .. '|'
    .. text(tonumber(made.number) + tonumber(made.ahead))
end

-- Says whose the next numbers are. This is the first write of a step: it fails where no more numbers fit.
local function write_buyers(g, first, buyers)
  redis.call('SETRANGE', base .. 'r:' .. g.generation, text((first - 1) * BUYER_BYTES), table.concat(buyers))
end

-- What the reservations in an entry have in common; `first` is the number of the first of them, the others
-- follow without a gap.
local function reserved_header(g, first, ahead)
  return '[' .. promo .. ',' .. g.generation .. ',' .. g.item .. ',' .. g.price .. ',' .. g.pay_within .. ','
    .. text(now) .. ',' .. text(first) .. ',' .. text(ahead) .. ']'
end

local function order_words(generation, number) return '"' .. promo .. '-' .. generation .. '-' .. number .. '"' end
