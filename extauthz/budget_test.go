package extauthz

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

func TestBudgetServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		if !b.tryTake(8) || b.tryTake(3) {
			t.Fatal("8 of 10 are free, 3 of the 2 that are left are not")
		}
		var mu sync.Mutex
		var order []string
		var calls sync.WaitGroup
		wait := func(name string, bytes int64) {
			calls.Go(func() {
				if b.take(t.Context(), bytes) {
					mu.Lock()
					order = append(order, name)
					mu.Unlock()
				}
			})
			synctest.Wait()
		}
		wait("large", 10)
		wait("small", 1)
		if b.tryTake(1) {
			t.Error("a newcomer passed those who wait")
		}
		if len(order) > 0 {
			t.Fatalf("%q went ahead of the one that waits for more", order)
		}
		b.giveBack(8)
		synctest.Wait()
		if len(order) != 1 || order[0] != "large" {
			t.Fatalf("served %q, want the large one", order)
		}
		b.giveBack(10)
		calls.Wait()
		if len(order) != 2 || b.free != 9 {
			t.Errorf("served %q with %d bytes free, want both and 9", order, b.free)
		}
	})
}

// Who gives up makes way for those behind.
func TestBudgetGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.tryTake(5)
		ctx, cancel := context.WithCancel(t.Context())
		large, small := make(chan bool, 1), make(chan bool, 1)
		go func() { large <- b.take(ctx, 10) }()
		synctest.Wait()
		go func() { small <- b.take(t.Context(), 5) }()
		synctest.Wait()
		cancel()
		if <-large || !<-small {
			t.Error("want the large one refused and the small one served")
		}
		b.giveBack(10)
		if b.free != 10 || b.queue.Len() != 0 {
			t.Errorf("%d bytes are free and %d wait, want 10 and none", b.free, b.queue.Len())
		}
	})
}

// Never more than the budget at once, and all of it is back at the end.
func TestBudgetLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 100).Draw(t, "size")
		callers := rapid.IntRange(1, 8).Draw(t, "callers")
		seed := rapid.Uint64().Draw(t, "seed")
		b := newBudget(size)
		var held, most atomic.Int64
		var calls sync.WaitGroup
		for i := range callers {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			calls.Go(func() {
				for range 20 {
					ctx, cancel := context.WithCancel(context.Background())
					if random.IntN(4) == 0 {
						go cancel()
					}
					bytes := 1 + random.Int64N(size)
					if b.tryTake(bytes) || b.take(ctx, bytes) {
						now := held.Add(bytes)
						for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
						}
						held.Add(-bytes)
						b.giveBack(bytes)
					}
					cancel()
				}
			})
		}
		calls.Wait()
		if most.Load() > size || b.free != size || b.queue.Len() != 0 {
			t.Fatalf("%d of %d bytes were held at once; at the end %d are free and %d wait", most.Load(), size, b.free, b.queue.Len())
		}
	})
}
