-- What wrk asks, and what it tells at the end: one line of JSON. FLOODGATE_METHOD and FLOODGATE_BODY say what.
wrk.method = os.getenv("FLOODGATE_METHOD") or "GET"
local body = os.getenv("FLOODGATE_BODY")
if body and body ~= "" then
  wrk.body = body
  wrk.headers["Content-Type"] = "application/json"
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"failed":%d,"refused":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d}\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
