-- Writes as a decision does. KEYS: the key.
return redis.call('SET', KEYS[1], '1', 'PX', 10000)
