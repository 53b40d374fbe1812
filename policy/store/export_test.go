package store

import "time"

// GoByCallersClock makes a Redis go by the time of each call, for the tests that all engines share.
func (c *RedisConfig) GoByCallersClock() { c.callersClock = true }

// SetBack makes the store believe that the server's clock is behind its own by that much more than it is, as after a step of either.
func (r *Redis) SetBack(d time.Duration) { r.ahead.Add(-d.Microseconds()) }
