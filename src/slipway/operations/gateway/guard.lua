-- Runs in Envoy for each request, after the key and the size were checked. It lets pass what a public ensemble needs,
-- and answers everything else itself with a sentence. The names in PUBLIC and the options in LIMITS are put above this
-- text (listener.py). The next filter refuses a request without the metadata `checked`, so that an error in this file
-- refuses too.

local SERVICE = "/inference.GRPCInferenceService/"
local MODEL_CALLS = {ModelInfer = true, ModelReady = true, ModelMetadata = true, ModelConfig = true}
local SERVER_CALLS = {ServerLive = true, ServerReady = true}
local GRPC_CODES = {[400] = 3, [403] = 7, [404] = 5, [408] = 4, [413] = 8, [415] = 3, [500] = 13}
local SECONDS = {H = 3600, M = 60, S = 1, m = 1e-3, u = 1e-6, n = 1e-9}
local CONTENT_TYPES = {[""] = true, ["application/octet-stream"] = true, ["application/json"] = true}
local ONLY = "the gateway forwards inference, readiness, metadata and configuration of classifiers alone"
local BYTES = 2
local SAMPLED = "slipway-sampled"

local function refuse(code, said)
  error({code = code, said = said}, 0)
end

local function encoded(said)
  return (said:gsub("[^ -$&-~]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function answer(handle, is_grpc, code, said)
  if is_grpc then
    handle:respond({[":status"] = "200", ["content-type"] = "application/grpc",
      ["grpc-status"] = tostring(GRPC_CODES[code] or 2), ["grpc-message"] = encoded(said)})
  else
    handle:respond({[":status"] = tostring(code)}, said)  -- the listener puts it into JSON
  end
end

local function check_model(name)
  if not name or not PUBLIC[name] then
    refuse(404, "the gateway serves no model of this name; ask for a classifier, not for one of its steps")
  end
  return name
end

local function check_deadline(headers)
  local given = headers:get("grpc-timeout")
  if not given then return end
  local number, unit = given:match("^(%d+)([HMSmun])$")
  if not number or #number > 8 then refuse(400, "grpc-timeout is not a gRPC deadline") end
  if tonumber(number) * SECONDS[unit] < LIMITS.deadline_s then
    refuse(400, "the deadline is under " .. LIMITS.deadline_s * 1000 .. " ms; give more time")
  end
end

-- A protobuf number at `at` of the text: its value, and the place after it.
local function varint(text, at)
  local value, scale = 0, 1
  for i = at, at + 9 do
    local byte = text:byte(i)
    if not byte then break end
    value = value + (byte % 128) * scale
    if byte < 128 then return value, i + 1 end
    scale = scale * 128
  end
  refuse(400, "the gRPC message is damaged")
end

-- What was read of the request at hand. Nothing waits between its first field and its last.
local seen = {fields = 0, described_bytes = 0}

-- The fields of a message of `length` bytes after `start`: calls `each(number, size, read)`, where `read()` is the
-- content. Numbers and groups are refused where the message has none. So is a tag that tritonserver could read otherwise:
-- protobuf of C++ takes five bytes of a tag, and keeps 32 bits of them.
local function fields(read_at, start, length, each)
  local at, stop = start, start + length
  while at < stop do
    seen.fields = seen.fields + 1
    if seen.fields > LIMITS.fields then refuse(400, "the gRPC message has over " .. LIMITS.fields .. " fields") end
    local head = read_at(at, math.min(20, stop - at))
    local tag, next_at = varint(head, 1)
    local kind, number = tag % 8, math.floor(tag / 8)
    if next_at > 6 or tag >= 2 ^ 32 or number < 1 then refuse(400, "the gRPC message is damaged") end
    if kind ~= BYTES then refuse(400, "the gRPC message has a field that no inference request has") end
    local size
    size, next_at = varint(head, next_at)
    local content = at + next_at - 1
    if content + size > stop then refuse(400, "the gRPC message is damaged") end
    each(number, size, function() return size == 0 and "" or read_at(content, size) end)
    at = content + size
  end
end

local function check_described(text)
  if text:find("shared_memory", 1, true) then
    refuse(403, "shared memory is not for clients of the gateway; send the tensor's bytes")
  end
end

local function check_output(text)
  local name = ""
  fields(function(at, size) return text:sub(at + 1, at + size) end, 0, #text, function(number, _, read)
    if number == 1 then name = read() end
  end)
  if text:find("classification", 1, true) and not (name == "PROBABILITY" or name:match("%.PROBABILITY$")) then
    refuse(403, "class_count works on PROBABILITY alone; leave it out for other outputs")
  end
end

-- tritonserver repeats a version that is none in its error, which becomes a header of HTTP/2: a long one breaks the
-- connection.
local function check_version(size, read)
  if size > LIMITS.version_digits or read():find("%D") then
    refuse(400, "the model version is not a number of at most " .. LIMITS.version_digits .. " digits; leave it out")
  end
end

-- ModelInferRequest: 1 name, 2 version, 3 id, 4 parameters, 5 inputs, 6 outputs, 7 raw inputs.
local function check_infer_field(number, size, read)
  if number == 3 and (size > LIMITS.id_bytes or read():find("%c")) then
    refuse(400, "the request id is longer than " .. LIMITS.id_bytes .. " bytes, or has control characters")
  elseif number >= 4 and number <= 6 then
    if size > LIMITS.described_bytes then
      refuse(400, "a tensor's description is over " .. LIMITS.described_bytes
        .. " bytes; send its content in raw_input_contents")
    end
    seen.described_bytes = seen.described_bytes + size
    if seen.described_bytes > LIMITS.all_described_bytes then
      refuse(400, "the descriptions of all tensors are over " .. LIMITS.all_described_bytes .. " bytes")
    end
    local text = read()
    check_described(text)
    if number == 6 then check_output(text) end
  elseif number > 7 then
    refuse(400, "the gRPC message has a field that no inference request has")
  end
end

local function check_grpc(handle, headers, call)
  if not (MODEL_CALLS[call] or SERVER_CALLS[call]) then
    refuse(403, ONLY)
  end
  check_deadline(headers)
  local encoding = headers:get("grpc-encoding")
  if encoding and encoding ~= "identity" then
    refuse(415, "the gateway reads no compressed messages; images are compressed already")
  end
  local body = handle:body()
  local length = body and body:length() or 0
  local head = length >= 5 and body:getBytes(0, 5) or ""
  local a, b, c, d = head:byte(2, 5)
  if head:byte(1) ~= 0 or ((a * 256 + b) * 256 + c) * 256 + d ~= length - 5 then
    refuse(400, "one uncompressed gRPC message is needed")
  end
  if SERVER_CALLS[call] then
    if length > 5 then refuse(400, "the message of " .. call .. " has no fields") end
    return nil
  end
  seen = {fields = 0, described_bytes = 0}
  local model
  fields(function(at, size) return body:getBytes(at, size) end, 5, length - 5, function(number, size, read)
    if number == 1 then
      model = check_model(size <= 256 and read() or "")
    elseif number == 2 then
      check_version(size, read)
    elseif call == "ModelInfer" and number ~= 7 then
      check_infer_field(number, size, read)
    end
  end)
  check_model(model)
  return call == "ModelInfer" and model or nil
end

local function check_http_infer(handle, headers, model)
  check_model(model)
  local length = headers:get("inference-header-content-length")
  if not length or not length:match("^%d%d?%d?%d?$") then
    refuse(400, "inference-header-content-length is needed, from 0 to 9999: send images as binary tensors")
  end
  if headers:get("content-encoding") then
    refuse(415, "the gateway reads no compressed bodies; images are compressed already")
  end
  if not CONTENT_TYPES[(headers:get("content-type") or ""):lower()] then
    refuse(415, "content-type: application/octet-stream is needed; tritonserver would read a form")
  end
  local body = handle:body()
  length = tonumber(length)
  if length > (body and body:length() or 0) then
    refuse(400, "inference-header-content-length is over the length of the body")
  end
  if length == 0 then return model end
  local text = body:getBytes(0, length)
  check_described(text)
  if text:find("\\", 1, true) or text:find("classification", 1, true) then
    refuse(403, "class_count and escaped text do not pass over HTTP; ask for class_count over gRPC")
  end
  if text:find('"data"%s*:') then  -- 2.51 ends where the memory that the shape names is not there
    refuse(400, "tensors in JSON do not pass; send their bytes behind the JSON, with binary_data_size")
  end
  local _, depth = text:gsub("[%[{]", "")
  if depth > LIMITS.brackets then
    refuse(400, "the JSON has " .. depth .. " lists and objects, and at most " .. LIMITS.brackets
      .. " pass; send images as binary tensors")
  end
  return model
end

local function check_http(handle, headers, path)
  local method = headers:get(":method")
  local model, rest = path:match("^/v2/models/([a-z][a-z0-9_]*)(.*)$")
  if model and rest:match("^/versions/%d%d?%d?%d?") then rest = rest:gsub("^/versions/%d+", "") end
  if model and rest == "/infer" and method == "POST" then return check_http_infer(handle, headers, model) end
  if method == "GET" then
    local body = handle:body()
    if body and body:length() > 0 then refuse(400, "a GET has no body; tritonserver would read a form in it") end
    if model and (rest == "" or rest == "/ready" or rest == "/config") then
      check_model(model)
      return nil
    end
    if path == "/v2/health/live" or path == "/v2/health/ready" then return nil end
  end
  refuse(403, ONLY)
end

-- The sample of the journal: a request is chosen with probability min(share, per_second / rate). The rate is that of the
-- last second, or the count of this one where that is larger: both are known before the request, so that the probability
-- is exactly the one that is recorded. A clock that goes back begins anew.
local second = {start = 0, count = 0, rate = 0}
math.randomseed(os.time() + (tonumber(tostring({}):match("0x(%x+)") or "0", 16) or 0) % 2147483648)

local function sample(handle)
  local headers = handle:headers()  -- those from before the body was waited for may not be used any more
  local now = tonumber(handle:timestamp()) / 1000
  local passed = now - second.start
  if passed < 0 or passed >= 1 then
    second = {start = now, count = 0, rate = passed > 0 and second.count / passed or 0}
  end
  second.count = second.count + 1
  local written = string.format("%.9g", math.min(LIMITS.share, LIMITS.per_second / math.max(second.rate, second.count)))
  if math.random() < tonumber(written) then
    headers:remove("x-forwarded-for")  -- the address of a client is not for the spool
    headers:remove("x-envoy-external-address")
    headers:add(SAMPLED, written)
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove(SAMPLED)
  local path = headers:get(":path") or ""
  local is_grpc = (headers:get("content-type") or ""):find("application/grpc", 1, true) == 1
  local fine, result = pcall(function()
    if is_grpc then
      if path:sub(1, #SERVICE) ~= SERVICE or headers:get(":method") ~= "POST" then
        refuse(403, ONLY)
      end
      return check_grpc(handle, headers, path:sub(#SERVICE + 1))
    end
    return check_http(handle, headers, path)
  end)
  if not fine then
    local known = type(result) == "table"
    if not known then handle:logErr("guard: " .. tostring(result)) end
    return answer(handle, is_grpc, known and result.code or 500,
      known and result.said or "the gateway could not read this request")
  end
  local found = handle:streamInfo():dynamicMetadata()
  found:set("slipway.gateway", "checked", "passed")
  if result then found:set("slipway.gateway", "model", result) end
  if result and LIMITS.share then
    local sampled, why = pcall(sample, handle)
    if not sampled then handle:logErr("guard: the journal's sample: " .. tostring(why)) end
  end
end

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
