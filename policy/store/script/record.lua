-- What the scripts share. A delivery is one record, at the key of its first message; the keys of its other messages are aliases that lead
-- to it. Both are strings of fixed layout, because the decoding is paid for with each delivery:
--
--   record   R, state, releases, id (16 bytes), taker (8 bytes), due (16 digits), expires (16 digits)
--   alias    A, id (16 bytes), message (16 bytes)
--
-- State is c (confirmed), r (reserved) or x (released: it may come again). An alias counts only while the record has its id. Moments are Unix
-- microseconds: whole numbers below 2^53, which a Lua number holds exactly until the year 2255.
local FOREVER = 9007199254740991
local NOBODY = string.rep('\0', 8)

-- Every key of an endpoint is the prefix, two letters for its kind and 16 bytes.
local prefix = KEYS[1] and string.sub(KEYS[1], 1, -19)

-- The server's own clock, unless a test gives the time: then keys outlive it, because the server's clock does not follow.
local seconds, nanos, slack
if ARGV[2] then
  seconds, nanos, slack = tonumber(ARGV[2]), tonumber(ARGV[3]), 600000
else
  local t = redis.call('TIME')
  seconds, nanos, slack = tonumber(t[1]), tonumber(t[2]) * 1000, 0
end
local now = seconds * 1000000 + math.floor(nanos / 1000)

local function digits(n) return string.format('%016.0f', n) end

-- A key's life in milliseconds, rounded up, as an argument.
local function life(micros) return string.format('%.0f', math.max(1, math.ceil(micros / 1000)) + slack) end

local function after(span) return math.min(now + span, FOREVER) end

local function pack(r)
  return 'R' .. r.state .. r.releases .. r.id .. r.by .. digits(r.due) .. digits(r.expires)
end

-- The live record that a message's key leads to, as it is at this moment: a reservation that has ended without a word is released, or
-- confirmed where it has been released too often.
local function find(key)
  local head, v = key, redis.call('GET', key)
  if not v then return nil end
  if string.sub(v, 1, 1) == 'A' then
    head = prefix .. 'm:' .. string.sub(v, 18, 33)
    local id = string.sub(v, 2, 17)
    v = redis.call('GET', head)
    if not v or string.sub(v, 1, 1) ~= 'R' or string.sub(v, 4, 19) ~= id then return nil end
  end
  local r = {
    key = head, state = string.sub(v, 2, 2), releases = tonumber(string.sub(v, 3, 3)), id = string.sub(v, 4, 19), by = string.sub(v, 20, 27),
    due = tonumber(string.sub(v, 28, 43)), expires = tonumber(string.sub(v, 44, 59)),
  }
  if now >= r.expires then return nil end
  if r.state == 'r' and now >= r.due then
    r.by = NOBODY
    if r.releases < MAX_RELEASES then
      r.state, r.releases = 'x', r.releases + 1
    else
      r.state = 'c'
    end
  end
  return r
end

-- Ends the reservation of a record with this state, which no release undoes.
local function become(r, state)
  if r.state == 'r' then redis.call('DEL', prefix .. 't:' .. r.id) end
  r.state, r.by, r.due = state, NOBODY, r.expires
  redis.call('SET', r.key, pack(r), 'KEEPTTL')
end

-- A stream's answer: duplicate (0 or 1), reserved (0 or 1), id (16 bytes), expires (16 digits), and the takers that were given it and have not
-- released it (8 bytes each), the latest last. This is where a taker stands in it.
local TAKERS = 35
local function holds(answer, taker)
  for at = TAKERS, #answer, 8 do
    if string.sub(answer, at, at + 7) == taker then return at end
  end
end

-- The answer of a stream, while it lasts.
local function answer(stream)
  local a = stream and redis.call('GET', stream)
  local expires = a and tonumber(string.sub(a, 19, 34))
  if expires and now < expires then return a end
end

-- Makes another taker the one that recorded the deliveries of the first so many keys.
local function hand_over(messages, from, to)
  for i = 1, messages do
    local r = find(KEYS[i])
    if r and r.by == from then redis.call('SETRANGE', r.key, 19, to) end
  end
end
