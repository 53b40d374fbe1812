package store_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
)

// faulty is a shared store with a fault that can be switched on: then a call waits for delay or its deadline, and fails with err if there is one.
type faulty struct {
	*store.Memory
	mu       sync.Mutex
	delay    time.Duration
	err      error
	lost     bool   // calls are carried out, and their replies are lost
	only     string // if set, the endpoint that the fault is confined to
	calls    int
	replicas int
	noted    [][]policy.SecretUse
}

func (f *faulty) set(delay time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay, f.err = delay, err
}

func (f *faulty) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *faulty) call(ctx context.Context, do func() error) error {
	f.mu.Lock()
	delay, err, lost := f.delay, f.err, f.lost
	f.calls++
	f.mu.Unlock()
	if lost {
		do()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(delay):
	}
	if err != nil {
		return err
	}
	return do()
}

func (f *faulty) Take(ctx context.Context, t *policy.Take) (taken policy.Taken, err error) {
	return f.TakeAs(ctx, t, policy.Token{})
}

func (f *faulty) TakeAs(ctx context.Context, t *policy.Take, token policy.Token) (taken policy.Taken, err error) {
	if f.only != "" && t.Endpoint != f.only {
		return f.Memory.TakeAs(ctx, t, token)
	}
	err = f.call(ctx, func() (err error) { taken, err = f.Memory.TakeAs(ctx, t, token); return err })
	return taken, err
}

func (f *faulty) Release(ctx context.Context, t *policy.Take) error {
	return f.call(ctx, func() error { return f.Memory.Release(ctx, t) })
}

func (f *faulty) Settle(ctx context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (ok bool, err error) {
	err = f.call(ctx, func() (err error) { ok, err = f.Memory.Settle(ctx, now, endpoint, token, confirmed); return err })
	return ok, err
}

func (f *faulty) Connect(context.Context) error { return nil }

func (f *faulty) Probe(ctx context.Context, _ string) error {
	return f.call(ctx, func() error { return nil })
}

func (f *faulty) Alive(ctx context.Context, _ time.Duration) (int, error) {
	f.mu.Lock()
	replicas := f.replicas
	f.mu.Unlock()
	if f.only != "" {
		return replicas, nil
	}
	return replicas, f.call(ctx, func() error { return nil })
}

func (f *faulty) NoteUses(ctx context.Context, uses []policy.SecretUse) error {
	return f.call(ctx, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.noted = append(f.noted, uses)
		return nil
	})
}

func (f *faulty) LastUses(ctx context.Context) (map[policy.VersionID]time.Time, error) {
	return nil, f.call(ctx, func() error { return nil })
}

// guarded is a guard before a faulty store, in a bubble of its own time.
type guarded struct {
	*testing.T
	*store.Guard
	shared *faulty
	local  *store.Memory
	log    bytes.Buffer
	mu     sync.Mutex // guards what follows
	states []store.BreakerState
}

// guarding runs a test with a guard; running says whether its Run does too.
func guarding(t *testing.T, c store.GuardConfig, running bool, test func(*guarded)) {
	synctest.Test(t, func(t *testing.T) {
		g := &guarded{T: t, shared: &faulty{Memory: store.NewMemory(store.MemoryConfig{}), replicas: 3}, local: store.NewMemory(store.MemoryConfig{})}
		c.Shared, c.Local, c.Logger = g.shared, g.local, slog.New(slog.NewTextHandler(&g.log, nil))
		c.Changed = func(s store.BreakerState) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.states = append(g.states, s)
		}
		g.Guard = store.NewGuard(c)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		if running {
			run.Go(func() { g.Guard.Run(ctx) })
			synctest.Wait()
		}
		test(g)
		cancel()
		run.Wait()
	})
}

// state is that of the breaker, once everything has come to rest.
func (g *guarded) state() store.BreakerState {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.states[len(g.states)-1]
}

func (g *guarded) message(n int) *policy.Take {
	return &policy.Take{Time: time.Now(), Endpoint: "e", Messages: []signature.MessageID{message(n)}, Window: time.Hour}
}

// away makes the store fail until the breaker opens.
func (g *guarded) away(delay time.Duration, err error) {
	g.Helper()
	g.shared.set(delay, err)
	for range 5 {
		if _, err := g.Take(g.Context(), &policy.Take{Time: time.Now(), Endpoint: "e"}); err == nil {
			g.Fatal("a store that fails has answered")
		}
	}
}

// back makes the store well again and waits until the breaker has closed.
func (g *guarded) back() {
	g.Helper()
	g.shared.set(0, nil)
	time.Sleep(3 * time.Second) // of the bubble's time
	if g.state() != store.Closed {
		g.Fatalf("the breaker has not closed: %v", g.states)
	}
}

func TestGuardOpensAndCloses(t *testing.T) {
	for name, fault := range map[string]struct {
		delay time.Duration
		err   error
	}{"errors": {0, errors.New("refused by peer")}, "a black hole": {time.Hour, nil}, "200 ms": {200 * time.Millisecond, nil}} {
		t.Run(name, func(t *testing.T) {
			guarding(t, store.GuardConfig{}, true, func(g *guarded) {
				began := time.Now()
				g.away(fault.delay, fault.err)
				if took := time.Since(began); took > 5*50*time.Millisecond {
					t.Errorf("five calls took %s, want no more than their deadlines", took)
				}
				// While it is away no call waits, however long it lasts, and whatever the breaker does.
				for range 1000 {
					began := time.Now()
					if _, err := g.Take(t.Context(), g.message(1)); err == nil {
						t.Fatal("a store that is away has answered")
					}
					if took := time.Since(began); took != 0 {
						t.Fatalf("a call waited %s for a store that is away", took)
					}
					time.Sleep(10 * time.Millisecond)
				}
				if n := strings.Count(g.log.String(), "the store is away"); n != 1 {
					t.Errorf("logged %d times, want once:\n%s", n, &g.log)
				}
				g.back()
				if n := strings.Count(g.log.String(), "the store is back"); n != 1 {
					t.Errorf("logged %d times, want once:\n%s", n, &g.log)
				}
				if got, err := g.Take(t.Context(), g.message(1)); err != nil || got.Duplicate {
					t.Errorf("got %+v, %v, want a new delivery", got, err)
				}
			})
		})
	}
}

// One shard of a cluster is away: its endpoints do not wait until half of all calls have failed.
func TestGuardOpensForOneEndpoint(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		g.shared.only = "gone"
		g.shared.set(time.Hour, nil)
		for range 5 {
			if g.state() != store.Closed {
				t.Fatalf("the breaker is open early: %v", g.states)
			}
			if _, err := g.Take(t.Context(), &policy.Take{Time: time.Now(), Endpoint: "gone"}); err == nil {
				t.Fatal("a store that is away has answered")
			}
			for n := range 10 {
				g.Take(t.Context(), g.message(n))
			}
		}
		if g.state() != store.Open {
			t.Errorf("the breaker is not open after five failures of an endpoint in a row: %v", g.states)
		}
		g.back()
		g.shared.set(time.Hour, nil)
		for range 100 { // an answer in between begins the row anew
			for range 4 {
				g.Take(t.Context(), &policy.Take{Time: time.Now(), Endpoint: "gone"})
			}
			g.shared.set(0, nil)
			for n := range 10 {
				g.Take(t.Context(), &policy.Take{Time: time.Now(), Endpoint: "gone"})
				g.Take(t.Context(), g.message(n))
			}
			g.shared.set(time.Hour, nil)
		}
		if g.state() != store.Closed {
			t.Errorf("the breaker is open, though the endpoint has answered in between: %v", g.states)
		}
	})
}

func TestGuardProbesFew(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		g.away(0, errors.New("refused"))
		before := g.shared.seen()
		time.Sleep(time.Minute)
		if n := g.shared.seen() - before; n < 30 || n > 300 {
			t.Errorf("a store that is away was asked %d times in a minute, want 1 to 5 a second", n)
		}
	})
}

// What is no failure never opens the breaker: an attacker could send as much of it as they like.
func TestGuardStaysClosed(t *testing.T) {
	refusing := func(g *guarded) { g.shared.set(0, policy.ErrStoreFull) }
	tests := []struct {
		name  string
		begin func(*guarded)
		call  func(*guarded, int)
	}{
		{"duplicates", nil, func(g *guarded, _ int) { g.Take(g.Context(), g.message(1)) }},
		{"limits", nil, func(g *guarded, _ int) {
			g.Take(g.Context(), &policy.Take{Time: time.Now(), Endpoint: "e", Buckets: []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 1}}}})
		}},
		{"a full store", refusing, func(g *guarded, n int) { g.Take(g.Context(), g.message(n)) }},
		{"tokens that are none", nil, func(g *guarded, n int) { g.Settle(g.Context(), time.Now(), "e", policy.Token{byte(n)}, true) }},
		{"callers that have hung up", func(g *guarded) { g.shared.set(10*time.Millisecond, nil) }, func(g *guarded, n int) {
			ctx, cancel := context.WithCancel(g.Context())
			cancel()
			if _, err := g.Take(ctx, g.message(n)); err != nil {
				g.Fatalf("the caller's context ended the call: %v", err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			guarding(t, store.GuardConfig{}, false, func(g *guarded) {
				if tt.begin != nil {
					tt.begin(g)
				}
				for n := range 100 {
					tt.call(g, n)
				}
				if diff := cmp.Diff([]store.BreakerState{store.Closed}, g.states); diff != "" {
					t.Errorf("states (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestGuardBoundsCalls(t *testing.T) {
	guarding(t, store.GuardConfig{MaxCalls: 2}, false, func(g *guarded) {
		g.shared.set(40*time.Millisecond, nil)
		var calls sync.WaitGroup
		for n := range 2 {
			calls.Go(func() { g.Take(t.Context(), g.message(n)) })
		}
		synctest.Wait()
		began := time.Now()
		if _, err := g.Take(t.Context(), g.message(3)); err == nil || time.Since(began) != 0 {
			t.Errorf("got %v after %s, want an error at once", err, time.Since(began))
		}
		calls.Wait()
		if _, err := g.Take(t.Context(), g.message(3)); err != nil {
			t.Errorf("got %v, want an answer: there is room again", err)
		}
	})
}

// A call whose reply was lost may have recorded the delivery. It was refused, so it must be new when its sender tries again.
func TestGuardReleasesWhatItIsUnsureOf(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		g.shared.mu.Lock()
		g.shared.delay, g.shared.lost = time.Hour, true
		g.shared.mu.Unlock()
		if _, err := g.Take(t.Context(), g.message(1)); err == nil {
			t.Fatal("a lost reply has arrived")
		}
		g.shared.mu.Lock()
		g.shared.delay, g.shared.lost = 0, false
		g.shared.mu.Unlock()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got, err := g.Take(t.Context(), g.message(1)); err != nil || got.Duplicate {
			t.Errorf("got %+v, %v, want a new delivery", got, err)
		}
	})
}

func TestGuardSettlesLater(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		reserved := g.message(1)
		reserved.Reservation = time.Minute
		taken, err := g.Take(t.Context(), reserved)
		if err != nil || taken.Token == (policy.Token{}) {
			t.Fatalf("got %+v, %v, want a reservation", taken, err)
		}
		g.away(0, errors.New("refused"))
		if ok, err := g.Settle(t.Context(), time.Now(), "e", taken.Token, true); ok || err == nil {
			t.Fatalf("got %v, %v from a store that is away", ok, err)
		}
		g.back()
		time.Sleep(time.Minute)
		if got, err := g.Take(t.Context(), g.message(1)); err != nil || !got.Duplicate || got.InFlight {
			t.Errorf("got %+v, %v, want a duplicate: the application has taken it", got, err)
		}
	})
}

// Outcomes that come while the store is away do not hold up its return.
func TestGuardSettlesMany(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		g.away(0, errors.New("refused"))
		reserved := g.message(1)
		reserved.Reservation = time.Minute
		taken, err := g.Local().Take(t.Context(), reserved)
		if err != nil || taken.Token == (policy.Token{}) {
			t.Fatalf("got %+v, %v, want a reservation", taken, err)
		}
		if ok, err := g.Settle(t.Context(), time.Now(), "e", taken.Token, true); !ok || err != nil {
			t.Errorf("got %v, %v of a reservation that was made here", ok, err)
		}
		for n := range 3000 {
			if ok, err := g.Settle(t.Context(), time.Now(), "e", policy.Token{1, byte(n), byte(n >> 8)}, true); ok || err == nil {
				t.Fatalf("got %v, %v of a token that nobody has given", ok, err)
			}
		}
		before := g.shared.seen()
		g.shared.set(10*time.Millisecond, nil)
		time.Sleep(3 * time.Second)
		if g.state() != store.Closed {
			t.Fatalf("the breaker has not closed: %v", g.states)
		}
		if n := g.shared.seen() - before; n < 3000 {
			t.Errorf("the store was asked %d times, want 3000 tokens to be tried", n)
		}
		if got, err := g.Take(t.Context(), g.message(1)); err != nil || !got.Duplicate || got.InFlight {
			t.Errorf("got %+v, %v, want a duplicate: the application has taken it", got, err)
		}
	})
}

func TestGuardWritesBack(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		g.away(0, errors.New("refused"))
		local := g.Local()
		take := func(taken policy.Take) policy.Taken {
			got, err := local.Take(t.Context(), &taken)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		take(*g.message(1))
		released := *g.message(2)
		take(released)
		if err := local.Release(t.Context(), &released); err != nil {
			t.Fatal(err)
		}
		open := *g.message(3)
		open.Reservation = time.Minute
		token := take(open).Token
		brief := *g.message(4)
		brief.Window = time.Second
		take(brief)
		refused := *g.message(5)
		refused.Buckets = []policy.Bucket{{Key: key(1)}} // allows nothing
		take(refused)
		take(*g.message(6))
		time.Sleep(2 * time.Second)
		g.back()
		stored := func(n int) policy.Taken {
			peek := g.message(n)
			peek.Peek = true
			got, err := g.shared.Memory.Take(t.Context(), peek)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		for n, want := range map[int]bool{1: true, 2: false, 3: true, 4: false, 5: false, 6: true} {
			if got := stored(n); got.Duplicate != want {
				t.Errorf("delivery %d: the store has it: %v, want %v", n, got.Duplicate, want)
			}
		}
		// What is still open is so there too.
		if got, err := g.Take(t.Context(), g.message(3)); err != nil || !got.InFlight {
			t.Errorf("got %+v, %v, want in flight", got, err)
		}
		if ok, err := g.Settle(t.Context(), time.Now(), "e", token, true); !ok || err != nil {
			t.Fatalf("settle: %v, %v", ok, err)
		}
		if got, err := g.Take(t.Context(), g.message(3)); err != nil || !got.Duplicate || got.InFlight {
			t.Errorf("got %+v, %v, want a duplicate", got, err)
		}
	})
}

// A process that ends tells the store what it knows, if that is there.
func TestGuardWritesBackAtTheEnd(t *testing.T) {
	guarding(t, store.GuardConfig{}, false, func(g *guarded) {
		if _, err := g.Local().Take(t.Context(), g.message(1)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(g.Context())
		cancel()
		g.Guard.Run(ctx)
		if got, err := g.shared.Memory.Take(t.Context(), g.message(1)); err != nil || !got.Duplicate {
			t.Errorf("got %+v, %v, want a duplicate", got, err)
		}
	})
}

// An outcome may come to another process than the one that made the reservation while the store was away, before the store is back and after.
func TestGuardSettlesForAnother(t *testing.T) {
	for _, tt := range []struct {
		name           string
		early, confirm bool
	}{{"confirmed", false, true}, {"released", false, false}, {"confirmed before the store is back", true, true}, {"released before the store is back", true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			guarding(t, store.GuardConfig{}, true, func(g *guarded) {
				ctx, cancel := context.WithCancel(g.Context())
				other := store.NewGuard(store.GuardConfig{Shared: g.shared, Local: store.NewMemory(store.MemoryConfig{}), Logger: slog.New(slog.DiscardHandler)})
				var run sync.WaitGroup
				run.Go(func() { other.Run(ctx) })
				defer run.Wait()
				defer cancel()
				g.away(0, errors.New("refused"))
				t := g.message(1)
				t.Reservation = time.Minute
				taken, err := g.Local().Take(ctx, t)
				if err != nil || taken.Token == (policy.Token{}) {
					g.Fatalf("got %+v, %v, want a reservation", taken, err)
				}
				if !tt.early {
					g.shared.set(0, nil) // and this process has not noticed yet
				}
				if ok, _ := other.Settle(ctx, time.Now(), "e", taken.Token, tt.confirm); ok {
					g.Error("an unknown reservation is settled")
				}
				g.back()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if got, err := other.Take(ctx, g.message(1)); err != nil || got.InFlight || got.Duplicate != tt.confirm {
					g.Errorf("got %+v, %v, want a duplicate: %v", got, err, tt.confirm)
				}
			})
		})
	}
}

// Envoy asks again about a stream that was taken while the store was away.
func TestGuardWritesStreamsBack(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		g.away(0, errors.New("refused"))
		take := g.message(1)
		take.Stream = "s"
		if _, err := g.Local().Take(t.Context(), take); err != nil {
			t.Fatal(err)
		}
		g.back()
		for stream, want := range map[string]policy.Taken{"s": {Retry: true}, "r": {Duplicate: true}} {
			again := *take
			again.Time, again.Stream = time.Now(), stream
			got, err := g.Take(t.Context(), &again)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("stream %s: %v, verdict (-want +got):\n%s", stream, err, diff)
			}
		}
	})
}

// Envoy asks again about a stream that was taken while the store was away, and the first check is taken back after that: what the retry was told
// stands, unless the retry itself is taken back.
func TestGuardHandsOver(t *testing.T) {
	for _, takenBack := range []bool{false, true} {
		guarding(t, store.GuardConfig{}, false, func(g *guarded) {
			first := g.message(1)
			first.Stream = "s"
			if _, err := g.Local().Take(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			retry, another := *first, *first
			retry.Time = time.Now()
			another.Time, another.Stream = time.Now(), "r"
			got, err := g.Take(t.Context(), &retry)
			if diff := cmp.Diff(policy.Taken{Retry: true}, got); err != nil || diff != "" {
				t.Errorf("%v, verdict (-want +got):\n%s", err, diff)
			}
			if err := g.Local().Release(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			if takenBack {
				if err := g.Release(t.Context(), &retry); err != nil {
					t.Fatal(err)
				}
			}
			got, err = g.Take(t.Context(), &another)
			if diff := cmp.Diff(policy.Taken{Duplicate: !takenBack}, got); err != nil || diff != "" {
				t.Errorf("the retry was taken back: %v; %v, verdict (-want +got):\n%s", takenBack, err, diff)
			}
		})
	}
}

// during is a Shared that does something before it takes.
type during struct {
	store.Shared
	do func()
}

func (d *during) TakeAs(ctx context.Context, t *policy.Take, token policy.Token) (policy.Taken, error) {
	d.do()
	return d.Shared.TakeAs(ctx, t, token)
}

// A delivery that is taken back while it is written to the store does not stay there.
func TestGuardTakesBackWhatItWrites(t *testing.T) {
	guarding(t, store.GuardConfig{}, false, func(g *guarded) {
		var guard *store.Guard
		take := g.message(1)
		guard = store.NewGuard(store.GuardConfig{Local: g.local, Logger: slog.New(slog.DiscardHandler), Shared: &during{g.shared, func() {
			if err := guard.Local().Release(g.Context(), take); err != nil {
				t.Error(err)
			}
		}}})
		if _, err := guard.Local().Take(g.Context(), take); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(g.Context())
		var run sync.WaitGroup
		run.Go(func() { guard.Run(ctx) })
		time.Sleep(5 * time.Second)
		cancel()
		run.Wait()
		again := g.message(1)
		if got, err := g.shared.Memory.Take(g.Context(), again); err != nil || got.Duplicate {
			t.Errorf("got %+v, %v, want a new delivery", got, err)
		}
	})
}

func TestGuardBoundsItsJournal(t *testing.T) {
	guarding(t, store.GuardConfig{MaxJournal: 10}, true, func(g *guarded) {
		g.away(0, errors.New("refused"))
		for n := range 15 {
			if _, err := g.Local().Take(t.Context(), g.message(n)); err != nil {
				t.Fatal(err)
			}
		}
		g.back()
		for n := range 15 {
			got, err := g.shared.Memory.Take(t.Context(), g.message(n))
			if want := n >= 5; err != nil || got.Duplicate != want {
				t.Errorf("delivery %d: got %+v, %v, want it written back: %v", n, got, err, want)
			}
		}
		if !strings.Contains(g.log.String(), "written=10 beyond_the_bound=5") {
			t.Errorf("the log does not say so:\n%s", &g.log)
		}
	})
}

func TestGuardCountsReplicas(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		if got := g.Replicas(); got != 3 {
			t.Errorf("got %d replicas, want those alive: 3", got)
		}
		g.away(0, errors.New("refused"))
		time.Sleep(time.Hour)
		if got := g.Replicas(); got != 3 {
			t.Errorf("got %d replicas while the store is away, want the last number: 3", got)
		}
	})
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		alive := func(n int) {
			g.shared.mu.Lock()
			defer g.shared.mu.Unlock()
			g.shared.replicas = n
		}
		alive(1) // the store was restarted empty, and the others have not found it yet
		time.Sleep(5 * time.Second)
		if got := g.Replicas(); got != 3 {
			t.Errorf("got %d replicas, want those that were lately alive: 3", got)
		}
		alive(2)
		time.Sleep(11 * time.Second)
		if got := g.Replicas(); got != 2 {
			t.Errorf("got %d replicas, want those that are left: 2", got)
		}
		alive(4)
		time.Sleep(3 * time.Second)
		if got := g.Replicas(); got != 4 {
			t.Errorf("got %d replicas, want those alive: 4", got)
		}
	})
	guarding(t, store.GuardConfig{Replicas: 7}, true, func(g *guarded) {
		if got := g.Replicas(); got != 7 {
			t.Errorf("got %d replicas, want those configured: 7", got)
		}
	})
	guarding(t, store.GuardConfig{}, false, func(g *guarded) {
		if got := g.Replicas(); got != 1 {
			t.Errorf("got %d replicas before any is known, want 1", got)
		}
	})
}

// What has changed is told every few seconds, once, and when the process ends. A store that is away is told later, and a store that fails
// at this does not count as away.
func TestGuardSharesUses(t *testing.T) {
	guarding(t, store.GuardConfig{}, true, func(g *guarded) {
		var mu sync.Mutex
		uses := []policy.SecretUse{used("a", "1", time.Time{}), used("a", "2", time.Time{})}
		use := func(i int) {
			mu.Lock()
			defer mu.Unlock()
			uses[i].LastUsed = time.Now()
		}
		noted := func() (words []string) {
			g.shared.mu.Lock()
			defer g.shared.mu.Unlock()
			for _, batch := range g.shared.noted {
				var versions []string
				for _, u := range batch {
					versions = append(versions, u.Version)
				}
				words = append(words, strings.Join(versions, ","))
			}
			g.shared.noted = nil
			return words
		}
		check := func(want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, noted()); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		}
		ctx, cancel := context.WithCancel(g.Context())
		var sharing sync.WaitGroup
		sharing.Go(func() {
			g.ShareUses(ctx, func() []policy.SecretUse {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(uses)
			})
		})
		const round = 7 * time.Second
		time.Sleep(round)
		check()
		for range 1000 {
			use(0)
		}
		time.Sleep(round)
		check("1")
		time.Sleep(10 * round)
		check()
		use(0)
		use(1)
		time.Sleep(round)
		check("1,2")

		g.away(0, errors.New("refused by peer"))
		use(1)
		time.Sleep(3 * round)
		check()
		g.back()
		time.Sleep(round)
		check("2")

		g.shared.set(0, errors.New("NOPERM"))
		states := len(g.states)
		if _, err := g.LastUses(g.Context()); err == nil {
			t.Error("a store that fails has answered")
		}
		g.shared.set(0, nil)
		if len(g.states) != states {
			t.Errorf("the breaker has moved: %v", g.states[states:])
		}

		use(0)
		cancel()
		sharing.Wait()
		check("1")
	})
}
