-- What wrk asks, and what it tells at the end: one line of JSON. FLOODGATE_REQUESTS names a file with the
-- requests as they go out, a NUL byte after each; they are sent in turn.
local file = assert(io.open(os.getenv("FLOODGATE_REQUESTS"), "rb"))
local requests = {}
for text in file:read("*a"):gmatch("([^%z]+)%z") do
  requests[#requests + 1] = text
end
file:close()

-- One that never changes is asked for once, more are asked for each time.
if #requests == 1 then
  wrk.format = function() return requests[1] end
else
  local last = 0
  request = function()
    last = last % #requests + 1
    return requests[last]
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"bytes":%d,"duration_us":%d,"failed":%d,"refused":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d}\n',
    summary.requests, summary.bytes, summary.duration, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
