package store

// GoByCallersClock makes a Redis go by the time of each call, for the tests that all engines share.
func (c *RedisConfig) GoByCallersClock() { c.callersClock = true }
