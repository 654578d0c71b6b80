-- Publishes a promo. ARGV: 1 only the first time (1), 2 digest, 3 terms in JSON, 4 what is wrong with
-- them or '', then item, starts_at, ends_at, price, stock, door, per_buyer, pay_within, token_ttl,
-- forget_at.
-- Answers new, unchanged, or E|refusal|detail.
local m = load_meta()
local g = m.cur and load_generation(m.cur)
if m.state then return 'E|overloaded|' end
local generation, epoch, reopened_at = '1', 0, nil
if g then
  local is_over = g.status == 'closed' or now >= g.ends_at
  local is_same = not is_over and redis.call('HGET', base .. 'g:' .. m.cur, 'digest') == ARGV[2]
  if ARGV[1] == '1' or is_same then return 'unchanged' end
  -- What has sold has begun, even if the clock was set back since.
  local has_begun = now >= g.starts_at or g.last_number > 0
  if has_begun and not is_over then return 'E|not_allowed|' end
  generation = text(tonumber(m.cur) + 1)
  -- A new generation is available: that is a change if the one before was sold out.
  epoch = g.sold_epoch
  if g.sold_out then epoch, reopened_at = epoch + 1, text(now) end
end
if ARGV[4] ~= '' then return 'E|bad|' .. ARGV[4] end
if tonumber(ARGV[7]) <= now then return 'E|bad|the sale would be over already' end
local key = base .. 'g:' .. generation
redis.call('HSET', key, 'digest', ARGV[2], 'terms', ARGV[3], 'item', ARGV[5], 'starts_at', ARGV[6],
  'ends_at', ARGV[7], 'price', ARGV[8], 'stock', ARGV[9], 'door', ARGV[10], 'per_buyer', ARGV[11],
  'pay_within', ARGV[12], 'token_ttl', ARGV[13], 'forget_at', ARGV[14], 'status', 'open', 'available', '0',
  'sold_out', '0', 'sold_epoch', text(epoch), 'sequence', '0', 'issued', '0', 'used', '0', 'last_number', '0')
if reopened_at then redis.call('HSET', key, 'reopened_at', reopened_at) end
redis.call('HSET', meta_key, 'cur', generation, 'kept', m.kept .. (m.kept == '' and '' or ',') .. generation)
local new = load_generation(generation)
change(new, tonumber(ARGV[9]), true)
save_generation(new)
-- The group of order writers reads from the stream's beginning.
redis.pcall('XGROUP', 'CREATE', base .. 's', 'writers', '0', 'MKSTREAM')
append(m, { event(new, '{"published":{"stock":' .. ARGV[9] .. ',"terms":' .. ARGV[3] .. ',"digest":'
  .. cjson.encode(ARGV[2]) .. '}}') })
tell('promo ' .. promo)
return 'new'
