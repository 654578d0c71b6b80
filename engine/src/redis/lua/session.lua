-- Refuses a step of one request whose session is not alive: for one call that does everything, on a Redis
-- that is no cluster. KEYS[2] the session's record; the buyer is the one whom the request's event names.
local session_buyer, session_end = string.match(redis.call('GET', KEYS[2]) or '', '^(%-?%d+)|(%d+)$')
if session_buyer ~= string.match(ARGV[8], '^[^\t]*') or now >= tonumber(session_end) then
  return { '', 'E|not_signed_in|' }
end
