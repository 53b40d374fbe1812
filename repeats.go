package main

import (
	"sync"
	"time"
)

// repeats bounds how often something that happens again and again is logged.
type repeats struct {
	every time.Duration
	now   func() time.Time

	mu     sync.Mutex // guards what follows
	logged time.Time
	held   int
}

// due reports whether to log it now: the first time, and from then on once in a while. held is how often it happened since it was logged
// last, without this time.
func (r *repeats) due() (held int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	if age := at.Sub(r.logged); age >= 0 && age < r.every { // a clock that was set back keeps nothing silent
		r.held++
		return 0, false
	}
	held, r.held, r.logged = r.held, 0, at
	return held, true
}
