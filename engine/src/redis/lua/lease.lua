-- Takes or renews a lease. KEYS: its holder, its fence. ARGV: who asks, for how many ms.
-- Answers the fence, or nothing while another one holds it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return false end
local fence = tonumber(redis.call('GET', KEYS[2]) or '0')
if not holder then
  -- Rises also where the last number was lost: it follows the clock.
  local time = redis.call('TIME')
  fence = math.max(fence + 1, time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('SET', KEYS[2], string.format('%.0f', fence))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return string.format('%.0f', fence)
