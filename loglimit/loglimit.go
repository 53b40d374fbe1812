// Package loglimit bounds how often something that happens again and again is logged: the first time at once, then once in a while with
// how often it happened meanwhile.
package loglimit

import (
	"sync"
	"time"
)

// Limit is for events of one kind. Every and Now are required.
type Limit struct {
	Every time.Duration
	Now   func() time.Time

	mu     sync.Mutex // guards what follows
	logged time.Time
	held   int
}

// Due reports whether to log the event that happens now, and how many were held back since the last one that was logged.
func (l *Limit) Due() (held int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.Now()
	if age := at.Sub(l.logged); age >= 0 && age < l.Every { // a clock that was set back keeps nothing silent
		l.held++
		return 0, false
	}
	held, l.held, l.logged = l.held, 0, at
	return held, true
}
