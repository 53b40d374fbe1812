-- KEYS: messages, and the stream where there is one. ARGV: taker and number of messages; time (2).
local by, messages = struct.unpack('<c8d', ARGV[1])
local stream = KEYS[messages + 1]
local given = answer(stream)
local at = given and holds(given, by)
if at then
  local others = string.sub(given, TAKERS, at - 1) .. string.sub(given, at + 8)
  if others ~= '' then -- they may have been let through
    redis.call('SET', stream, string.sub(given, 1, TAKERS - 1) .. others, 'KEEPTTL')
    hand_over(messages, by, string.sub(others, -8))
    return now
  end
  redis.call('DEL', stream)
end
for i = 1, messages do
  local r = find(KEYS[i])
  if r and r.by == by then
    if r.releases > 0 then
      become(r, 'x') -- what the application released before keeps its count
    else
      if r.state == 'r' then redis.call('DEL', prefix .. 't:' .. r.id) end
      redis.call('DEL', r.key)
    end
  end
end
return now
