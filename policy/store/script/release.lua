-- KEYS: messages, and the stream where there is one. ARGV: taker and number of messages; time (2).
local by, messages = struct.unpack('<c8d', ARGV[1])
local stream = KEYS[messages + 1]
if stream then
  local a = redis.call('GET', stream)
  if a and string.sub(a, 19, 26) == by then redis.call('DEL', stream) end
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
