-- KEYS: messages, buckets, and the stream where there is one.
-- ARGV: one string, because each argument is paid for: id, taker, the last moment at which this call may act (0: any), number of messages,
-- flags, window and reservation, then for each bucket its interval and how early it lets events be, in nanoseconds; time (2).
-- Replies one string: flags, number of the bucket that refuses, nanoseconds to wait (-1: for ever) and now, then the token of the stream's
-- first answer.
local RETRY, DUPLICATE, IN_FLIGHT, LATE = 1, 2, 4, 8
local function reply(verdict, bucket, wait, token) return struct.pack('<dddd', verdict, bucket, wait, now) .. (token or '') end

local id, by, last, messages, flags, window, reservation, at = struct.unpack('<c16c8ddddd', ARGV[1])

-- The caller has given up and decided without us: to act now would record a delivery that was refused.
if last > 0 and now > last then return reply(LATE, 0, 0) end

local tag, peek = flags % 2 == 1, flags >= 2
local buckets = (#ARGV[1] - at + 1) / 16
local stream = KEYS[messages + buckets + 1]

local given = answer(stream)
if given then
  if not peek and not holds(given, by) and not holds(given, NOBODY) then
    -- The first check of this stream has been given up by Envoy and may yet release its take. But this retry may be let through, and what is
    -- let through must stay remembered, until all that were told so have released it. Which came first here does not say which Envoy has
    -- given up. Beyond so many they are not told apart, and it stays.
    local latest = #given - TAKERS + 1 < 8 * MAX_TAKERS and by or NOBODY
    hand_over(messages, string.sub(given, -8), latest)
    redis.call('SETRANGE', stream, #given, latest)
  end
  local again, reserved = string.sub(given, 1, 1) == '1', string.sub(given, 2, 2) == '1'
  return reply(again and RETRY + DUPLICATE or RETRY, 0, 0, reserved and string.sub(given, 3, 18))
end

local duplicate, known, releases = false, {}, 0
for i = 1, messages do
  local r = find(KEYS[i])
  if r then
    if r.state == 'r' then return reply(DUPLICATE + IN_FLIGHT, 0, (r.due - now) * 1000) end
    if r.state == 'c' then
      duplicate = true
      if not tag then return reply(DUPLICATE, 0, 0) end
      break
    end
    releases = math.max(releases, r.releases)
    known[#known + 1] = r.key
  end
end
local verdict = duplicate and DUPLICATE or 0

-- GCRA, as rate.Limit.Take has it. A bucket holds its moment as seconds and nine digits of nanoseconds. All arithmetic is on how far
-- that lies ahead of now, in nanoseconds: exact up to 2^53, which is 104 days; beyond, to a few nanoseconds.
local MINUTE = 60000000000
local leads = {}
local function store(key, lead)
  local n = nanos + lead
  local moment = string.format('%.0f%09.0f', seconds + math.floor(n / 1000000000), n % 1000000000)
  return redis.pcall('SET', key, moment, 'PX', life(lead / 1000))
end
for i = 1, buckets do
  local key = KEYS[messages + i]
  local interval, early
  interval, early, at = struct.unpack('<dd', ARGV[1], at)
  if interval == 0 then return reply(verdict, i, -1) end
  local lead, moment = 0, redis.call('GET', key)
  if moment then
    lead = (tonumber(string.sub(moment, 1, -10)) - seconds) * 1000000000 + tonumber(string.sub(moment, -9)) - nanos
  end
  lead = math.max(lead, 0)
  -- Further ahead than this limit can have put it, and than clocks may differ: it counts as a budget that is just spent.
  local wrong = lead > early + interval + MINUTE
  if wrong then lead = early + interval end
  if lead > early then
    if wrong then store(key, lead) end
    return reply(verdict, i, lead - early)
  end
  leads[i] = lead + interval
end
if peek then return reply(verdict, 0, 0) end

-- All or nothing: the first write fails where the server takes none, before anything has changed.
if not duplicate and messages > 0 then
  local span = math.max(window, reservation)
  local r = {state = 'c', releases = releases, id = id, by = by, expires = after(span)}
  r.due = r.expires
  if reservation > 0 then
    r.state, r.due = 'r', after(reservation)
    redis.call('SET', prefix .. 't:' .. id, string.sub(KEYS[1], -16), 'PX', life(r.due - now))
  end
  local ttl = life(r.expires - now)
  redis.call('SET', KEYS[1], pack(r), 'PX', ttl)
  local alias = 'A' .. id .. string.sub(KEYS[1], -16)
  for i = 2, messages do redis.call('SET', KEYS[i], alias, 'PX', ttl) end
  for _, old in ipairs(known) do -- released before, under a message that is not among these
    local mine = false
    for i = 1, messages do mine = mine or KEYS[i] == old end
    if not mine then redis.call('DEL', old) end
  end
end
for i = 1, buckets do
  local done = store(KEYS[messages + i], leads[i])
  if type(done) == 'table' and done.err then return done end
end
if stream then
  local reserved = not duplicate and messages > 0 and reservation > 0
  local a = (duplicate and '1' or '0') .. (reserved and '1' or '0') .. id .. digits(after(STREAM_WINDOW)) .. by
  redis.call('SET', stream, a, 'PX', life(STREAM_WINDOW))
end
return reply(verdict, 0, 0)
