-- Replaces a value unless somebody else has meanwhile. KEYS: the key. ARGV: the value as the caller knows it, empty for none; the next value.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
