-- Notes when secret versions were last used. KEYS: the sorted set, of versions by that moment in milliseconds. ARGV: for how long they are kept, in
-- milliseconds, how many at most, and for each version the moment and the name. No clock of a replica's goes ahead of the server's.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]))
for i = 3, #ARGV, 2 do
  local at = math.min(now, tonumber(ARGV[i]))
  if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('ZADD', KEYS[1], 'GT', at, ARGV[i + 1])
  else -- only those that are known
    redis.call('ZADD', KEYS[1], 'XX', 'GT', at, ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.status_reply('OK')
