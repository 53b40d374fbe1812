package extauthz

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A call's own deadline is left a tenth of its time, at most 100 ms; one without a deadline gets one.
func TestEarlyEnds(t *testing.T) {
	for _, tt := range []struct {
		name       string
		call, want time.Duration
	}{
		{"short", 100 * time.Millisecond, 90 * time.Millisecond},
		{"long", 10 * time.Second, 9900 * time.Millisecond},
		{"none", 0, defaultDeadline},
	} {
		for _, waiting := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				call, cancel := context.Background(), context.CancelFunc(func() {})
				if tt.call > 0 {
					call, cancel = context.WithTimeout(call, tt.call)
				}
				defer cancel()
				e := newEarly(call)
				defer e.stop()
				if end, ok := e.Deadline(); !ok || time.Until(end) != tt.want {
					t.Errorf("%s: it ends in %s, want %s", tt.name, time.Until(end), tt.want)
				}
				if waiting {
					e.Done()
				}
				time.Sleep(tt.want - 1)
				if err := e.Err(); err != nil {
					t.Errorf("%s: %v before its end", tt.name, err)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if err := e.Err(); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v at its end", tt.name, err)
				}
				select {
				case <-e.Done():
				default:
					t.Errorf("%s: nobody is told of its end", tt.name)
				}
			})
		}
	}
}

// It ends with the call, and what is derived from it ends with it.
func TestEarlyEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call, cancel := context.WithCancel(context.Background())
		e := newEarly(call)
		child, stop := context.WithTimeout(e, time.Hour)
		defer stop()
		cancel()
		synctest.Wait()
		if e.Err() != context.Canceled || child.Err() != context.Canceled {
			t.Errorf("got %v and %v", e.Err(), child.Err())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		e := newEarly(context.Background())
		child, cancel := context.WithCancel(e)
		defer cancel()
		e.stop()
		synctest.Wait()
		if child.Err() != context.Canceled {
			t.Errorf("got %v once the check has ended", child.Err())
		}
	})
}
