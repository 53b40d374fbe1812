package extauthz

import (
	"container/list"
	"context"
	"sync"
)

// budget is an amount of memory that calls share. Who does not get its part at once waits in line, so that a large part is not starved by
// small ones. The line needs no bound of its own: a call that waits is one of the streams that the server allows.
type budget struct {
	mu    sync.Mutex // guards what follows
	free  int64
	queue list.List // of *claim, the longest waiting first
}

// claim is one call in the line.
type claim struct {
	bytes   int64
	granted chan struct{} // closed when the bytes are its own
}

func newBudget(bytes int64) *budget { return &budget{free: bytes} }

// tryTake takes the bytes if they are free and nobody waits. What was taken goes back by giveBack.
func (b *budget) tryTake(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.queue.Len() > 0 || bytes > b.free {
		return false
	}
	b.free -= bytes
	return true
}

// take waits until the bytes are free or ctx ends, and reports whether it got them.
func (b *budget) take(ctx context.Context, bytes int64) bool {
	c := &claim{bytes: bytes, granted: make(chan struct{})}
	b.mu.Lock()
	place := b.queue.PushBack(c)
	b.grant()
	b.mu.Unlock()
	select {
	case <-c.granted:
		return true
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.granted:
		return true // both happened at once
	default:
	}
	b.queue.Remove(place)
	b.grant() // this claim may have been in the way of smaller ones
	return false
}

func (b *budget) giveBack(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += bytes
	b.grant()
}

// grant serves the line in its order, as far as the free bytes go.
func (b *budget) grant() {
	for first := b.queue.Front(); first != nil; first = b.queue.Front() {
		c := first.Value.(*claim)
		if c.bytes > b.free {
			return
		}
		b.free -= c.bytes
		b.queue.Remove(first)
		close(c.granted)
	}
}

// state is what is free, and how many wait.
func (b *budget) state() (free int64, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free, b.queue.Len()
}
