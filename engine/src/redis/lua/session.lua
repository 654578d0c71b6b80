-- Refuses a step of one request whose session is not alive: for one call that does everything, on a Redis
-- that is no cluster. KEYS[2] the session's record; the buyer is the one whom the request's event names.
local session_buyer, session_end = string.match(redis.call('GET', KEYS[2]) or '', '^(%-?%d+)|(%d+)$')
local asked_by = string.match(cmsgpack.unpack(ARGV[5])[4][1], '^[^\t]*')
if session_buyer ~= asked_by or now >= tonumber(session_end) then
  return { '', 'E|not_signed_in|' }
end
