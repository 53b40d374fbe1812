package extauthz

import (
	"context"
	"sync"
	"time"
)

// arrivals are the calls that were let in and whose handler has not begun. grpc-go ends some without ever running it, such as those in a
// compression that it does not know; sweep finds them. (A context.AfterFunc for each call would do the same for ten times the cost.)
type arrivals struct {
	mu      sync.Mutex // guards what follows
	waiting map[*arrival]struct{}
	swept   time.Time
}

// arrival is the context of a call until its handler takes it out.
type arrival struct{ context.Context }

type arrivalKey struct{}

func (a *arrival) Value(key any) any {
	if key == (arrivalKey{}) {
		return a
	}
	return a.Context.Value(key)
}

func newArrivals() *arrivals { return &arrivals{waiting: make(map[*arrival]struct{})} }

// add notes a call.
func (a *arrivals) add(ctx context.Context) context.Context {
	call := &arrival{ctx}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[call] = struct{}{}
	return call
}

// begin takes a call out, and reports whether it was there.
func (a *arrivals) begin(ctx context.Context) bool {
	call, _ := ctx.Value(arrivalKey{}).(*arrival)
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.waiting[call]
	delete(a.waiting, call)
	return ok
}

// sweepEvery bounds the time that is spent on looking for calls that have ended.
const sweepEvery = 100 * time.Millisecond

// sweep takes out the calls that have ended, and reports how many they were. It does nothing where it did so just now.
func (a *arrivals) sweep(now time.Time) (ended int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.swept) < sweepEvery {
		return 0
	}
	a.swept = now
	for call := range a.waiting {
		if call.Err() != nil {
			delete(a.waiting, call)
			ended++
		}
	}
	return ended
}
