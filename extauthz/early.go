package extauthz

import (
	"context"
	"sync"
	"time"
)

// early is the context of a call that ends a little before the call's own deadline, so that a denial for it still arrives: what Envoy does
// without an answer is up to its configuration. Its timer is made when somebody waits for it, which few calls do.
type early struct {
	context.Context // of the call
	end             time.Time

	mu     sync.Mutex // guards what follows
	timed  context.Context
	cancel context.CancelFunc
}

func newEarly(ctx context.Context) *early {
	now := time.Now()
	end, bounded := ctx.Deadline()
	if !bounded {
		end = now.Add(defaultDeadline)
	} else {
		end = end.Add(-min(end.Sub(now)/10, 100*time.Millisecond))
	}
	return &early{Context: ctx, end: end}
}

// Deadline implements context.Context.
func (e *early) Deadline() (time.Time, bool) { return e.end, true }

// Done implements context.Context.
func (e *early) Done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timed == nil {
		e.timed, e.cancel = context.WithDeadline(e.Context, e.end)
	}
	return e.timed.Done()
}

// Err implements context.Context.
func (e *early) Err() error {
	e.mu.Lock()
	timed := e.timed
	e.mu.Unlock()
	if timed != nil {
		return timed.Err()
	}
	if err := e.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(e.end) {
		return context.DeadlineExceeded
	}
	return nil
}

// stop ends it, and whatever waits for it.
func (e *early) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel()
	}
}
