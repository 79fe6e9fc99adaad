-- Runs in Envoy for each answer over HTTP: a request that tritonserver could not read is a mistake of the client.

-- How tritonserver begins its message about malformed JSON, or about a JSON value that it cannot use. Its status is then
-- 500 or 501, as for its own faults, whose messages begin otherwise: "in ensemble 'colours', …".
local UNREADABLE = {"failed to parse the request JSON buffer", "Unable to parse ", "attempt to access ",
  "failed to get request params", "string correlation ID "}

function envoy_on_response(handle)
  local status = handle:headers():get(":status")
  if status ~= "500" and status ~= "501" then return end
  local body = handle:body()
  local length = body and math.min(body:length(), 64) or 0
  local said = length > 0 and body:getBytes(0, length):match('^{"error":"(.*)') or ""
  for _, words in ipairs(UNREADABLE) do
    if said:sub(1, #words) == words then handle:headers():replace(":status", "400") end
  end
end
