-- The sale's admission in Lua: sessions and access tokens (the same JWTs as Floodgate's), "sold out" in a
-- shared dictionary, the reservation by one script in Redis over a pooled connection. Redis is spoken to by hand:
-- with lua-nginx-redis an order takes nginx more than twice as long.
local cjson = require "cjson.safe"
local ffi = require "ffi"
local from_base64url = require("ngx.base64").decode_base64url

ffi.cdef [[
typedef struct hmac_ctx_st HMAC_CTX;
typedef struct evp_md_st EVP_MD;
HMAC_CTX *HMAC_CTX_new(void);
const EVP_MD *EVP_sha256(void);
int HMAC_Init_ex(HMAC_CTX *ctx, const void *key, int len, const EVP_MD *md, void *engine);
int HMAC_Update(HMAC_CTX *ctx, const unsigned char *data, size_t len);
int HMAC_Final(HMAC_CTX *ctx, unsigned char *md, unsigned int *len);
]]
local crypto = ffi.load("crypto.so.3")

local sale = {}
local sold_out = ngx.shared.sold_out
local host, port, hmac
local digest, digest_len = ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")

local KEY_ID = "k1"
local TOKEN_BYTES_MAX = 1024
local LEEWAY_S = 2
local PER_BUYER = "1"
local POOLED, POOLED_MS = 256, 60000

-- All that must hold together, in one step. KEYS: stock, units of each buyer, orders by buyer and key, the
-- stream of orders. ARGV: buyer, key, units, units a buyer may have, order id, body, promo, item. Answers in one
-- line.
local RESERVE = [[
local mine = ARGV[1] .. ':' .. ARGV[2]
local made = redis.call('HGET', KEYS[3], mine)
if made then
  local id, body = string.match(made, '^(%S+) (.*)$')
  return redis.status_reply(body == ARGV[6] and 'made ' .. id or 'reused')
end
local amount = tonumber(ARGV[3])
local held = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if held + amount > tonumber(ARGV[4]) then return redis.status_reply('limit') end
local left = tonumber(redis.call('GET', KEYS[1]) or 0)
if left < amount then return redis.status_reply(left == 0 and 'sold_out' or 'too_many') end
left = redis.call('DECRBY', KEYS[1], ARGV[3])
redis.call('HINCRBY', KEYS[2], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[3], mine, ARGV[5] .. ' ' .. ARGV[6])
redis.call('XADD', KEYS[4], '*', 'order', ARGV[5], 'buyer', ARGV[1], 'promo', ARGV[7], 'item', ARGV[8],
  'amount', ARGV[3], 'key', ARGV[2])
return redis.status_reply((left == 0 and 'last ' or 'made ') .. ARGV[5])
]]

local function bulk(text) return "$" .. #text .. "\r\n" .. text .. "\r\n" end

-- Both ways to call it, up to the keys: 15 words, of which 4 are keys.
local BY_SHA1
local BY_TEXT = "*15\r\n" .. bulk("EVAL") .. bulk(RESERVE) .. bulk("4")

-- Reads the key; called before workers are made.
function sale.open(key_file, redis_host, redis_port)
  local file = assert(io.open(key_file))
  local key = ngx.decode_base64((file:read("*l")))
  file:close()
  host, port = redis_host, redis_port
  hmac = crypto.HMAC_CTX_new()
  assert(crypto.HMAC_Init_ex(hmac, key, #key, crypto.EVP_sha256(), nil) == 1)
  local sha1 = ngx.sha1_bin(RESERVE):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  BY_SHA1 = "*15\r\n" .. bulk("EVALSHA") .. bulk(sha1) .. bulk("4")
end

local function answer(status, body, retry_after)
  ngx.status = status
  local header = ngx.header
  header["Cache-Control"] = "no-store"
  header["Content-Length"] = #body
  if retry_after then header["Retry-After"] = retry_after end
  ngx.print(body)
end

local function refuse(status, code, message, retry_after)
  answer(status, '{"status":"fail","data":{"errCode":' .. code .. ',"errMsg":"' .. message .. '"}}', retry_after)
end

local function not_signed_in() return refuse(401, 20003, "please sign in") end
local function token_invalid() return refuse(403, 30005, "the access token is not valid") end
local function is_sold_out() return refuse(409, 30001, "sold out") end

-- Headers are as few as the keys that sign, so each is read once.
local headers = {}

local function is_header(text, typ)
  local header = headers[text]
  if not header then
    header = cjson.decode(from_base64url(text) or "")
    if type(header) ~= "table" or header.alg ~= "HS256" or header.kid ~= KEY_ID then return false end
    headers[text] = header
  end
  return header.typ == typ
end

-- The claims of a token that we signed for this purpose.
local function claims_of(token, typ, aud)
  if not token or #token > TOKEN_BYTES_MAX then return nil end
  local first = token:find(".", 1, true)
  local second = first and token:find(".", first + 1, true)
  if not second or not is_header(token:sub(1, first - 1), typ) then return nil end
  crypto.HMAC_Init_ex(hmac, nil, 0, nil, nil)
  crypto.HMAC_Update(hmac, token, second - 1)
  crypto.HMAC_Final(hmac, digest, digest_len)
  if from_base64url(token:sub(second + 1)) ~= ffi.string(digest, 32) then return nil end
  local claims = cjson.decode(from_base64url(token:sub(first + 1, second - 1)) or "")
  if type(claims) ~= "table" or claims.iss ~= "floodgate" or claims.aud ~= aud then return nil end
  return claims
end

local function session()
  local claims = claims_of(ngx.var.cookie_floodgate_session, "floodgate-session+jwt", "floodgate-shop")
  return claims and ngx.time() < claims.exp and claims or nil
end

local function fields()
  ngx.req.read_body()
  local read = cjson.decode(ngx.req.get_body_data() or "")
  return type(read) == "table" and read or nil
end

-- POST /order/generatetoken. Tokens are made elsewhere: here it says only why there is none.
function sale.generate_token()
  if not session() then return not_signed_in() end
  local asked = fields()
  if not asked or not tonumber(asked.promoId) then return refuse(400, 10001, "promoId is missing") end
  if sold_out:get(asked.promoId) then return is_sold_out() end
  return refuse(503, 30009, "paused", 1)
end

local keys = {}

local function keys_of(promo)
  local known = keys[promo]
  if not known then
    local tag = "{" .. promo .. "}"
    known = bulk("stock" .. tag) .. bulk("held" .. tag) .. bulk("orders" .. tag) .. bulk("stream" .. tag)
    keys[promo] = known
  end
  return known
end

-- What Redis answers: a word, and the order's id if there is one; or nothing, and why.
local function reserve(buyer, key, amount, promo, item)
  local connection = ngx.socket.tcp()
  connection:settimeout(5000)
  local ok, failure = connection:connect(host, port)
  if not ok then return nil, failure end
  local order = promo .. "-" .. buyer .. "-" .. key
  local words = keys_of(promo) .. bulk(buyer) .. bulk(key) .. bulk(tostring(amount)) .. bulk(PER_BUYER)
    .. bulk(order) .. bulk(item .. ":" .. promo .. ":" .. amount) .. bulk(tostring(promo)) .. bulk(tostring(item))
  local function call(way)
    local sent, failure = connection:send(way .. words)
    if not sent then return nil, failure end
    return connection:receive()
  end
  local line, failure = call(BY_SHA1)
  if line and line:sub(1, 9) == "-NOSCRIPT" then line, failure = call(BY_TEXT) end
  if not line then return nil, failure end
  connection:setkeepalive(POOLED_MS, POOLED)
  if line:sub(1, 1) ~= "+" then return nil, line end
  local gap = line:find(" ", 1, true)
  if not gap then return line:sub(2) end
  return line:sub(2, gap - 1), line:sub(gap + 1)
end

-- POST /order/create.
function sale.create_order()
  local signed_in = session()
  if not signed_in then return not_signed_in() end
  local asked = fields()
  if not asked then return refuse(400, 10001, "not JSON") end
  local access = claims_of(asked.token, "floodgate-access+jwt", "floodgate-orders")
  local now = ngx.time()
  local amount = asked.amount or 1
  if not access or access.nbf > now + LEEWAY_S or access.exp + LEEWAY_S <= now or access.sub ~= signed_in.sub
    or access.promo ~= asked.promoId or access.item ~= asked.itemId then
    return token_invalid()
  end
  if type(amount) ~= "number" or amount < 1 or amount > access.amount_max then
    return refuse(409, 30006, "the limit of units for one buyer is reached")
  end
  if sold_out:get(access.promo) then return is_sold_out() end
  local key = ngx.var.http_idempotency_key or access.jti
  local what, order = reserve(access.sub, key, amount, access.promo, access.item)
  if not what then
    ngx.log(ngx.ERR, "Redis: ", order)
    return refuse(503, 30008, "too busy", 1)
  end
  if what == "last" or what == "sold_out" then sold_out:set(access.promo, true) end
  if what == "made" or what == "last" then
    return answer(202, '{"status":"success","data":{"orderId":"' .. order .. '"}}')
  elseif what == "sold_out" then
    return is_sold_out()
  elseif what == "limit" then
    return refuse(409, 30006, "the limit of units for one buyer is reached")
  elseif what == "reused" then
    return refuse(422, 30011, "the key belongs to another order")
  end
  return refuse(400, 10001, "fewer are left")
end

return sale
