package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"github.com/sony/gobreaker/v2"

	"github.com/hookauthz/hookauthz/policy"
)

// Shared is a store that many processes share, as a Guard needs it. Redis is one.
type Shared interface {
	policy.Store
	// TakeAs is Take, with a token for the reservation that it makes; zero: a new one.
	TakeAs(ctx context.Context, t *policy.Take, token policy.Token) (policy.Taken, error)
	// Connect connects, where that has not been done.
	Connect(ctx context.Context) error
	// Probe asks whether the store takes writes where the keys of an endpoint are.
	Probe(ctx context.Context, endpoint string) error
	// Alive notes that this process is alive and counts those that were within the last while.
	Alive(ctx context.Context, while time.Duration) (replicas int, err error)
	// NoteUses notes when secret versions were last used. What is known to be later stays.
	NoteUses(ctx context.Context, uses []policy.SecretUse) error
	// LastUses is what all processes have noted.
	LastUses(ctx context.Context) (map[policy.VersionID]time.Time, error)
}

// BreakerState is the state of a circuit breaker, as its metric has it.
type BreakerState int

// The states of a breaker.
const (
	Closed BreakerState = iota
	HalfOpen
	Open
)

func (s BreakerState) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	}
	return "open"
}

// GuardConfig says what a Guard stands before. Zero values take the defaults.
type GuardConfig struct {
	// Shared is the store to guard. Required.
	Shared Shared
	// Local keeps this process's own state, for which Shared is not asked. Required.
	Local policy.Store
	// Timeout bounds each call. Default: 50 ms.
	Timeout time.Duration
	// MaxCalls bounds the calls that are under way; one more fails, and counts as a failure. Default: 1024.
	MaxCalls int
	// MaxJournal bounds the deliveries that are remembered to be written back; beyond it the oldest is not. Default: 65,536.
	MaxJournal int
	// Replicas is the number of processes that share the store. Default: those that were lately alive.
	Replicas int
	// Logger takes what changes. Required.
	Logger *slog.Logger
	// Changed is told each state of the breaker. It must be quick. Default: nobody is.
	Changed func(BreakerState)
}

// Guard is a Store that stands before a shared one, so that one that is slow or away slows nobody down: each call has a deadline of its own,
// and after a few failures a circuit breaker opens. While it is open every call fails at once; only Run, in the background, asks whether the
// store is back, so that no decision ever waits for the answer.
//
// What it takes for a failure is an error, a deadline or overload: never a verdict, policy.ErrStoreFull included, and never a caller that hangs up.
//
// It brings the store up to date before it lets calls through again: what Local recorded meanwhile is written back, and a record that may
// or may not have been made by a call that failed is released.
type Guard struct {
	config   GuardConfig
	breaker  *gobreaker.CircuitBreaker[struct{}]
	closed   atomic.Bool  // the breaker
	underWay atomic.Int64 // calls
	moment   atomic.Pointer[moment]
	inARow   failures
	trip     atomic.Bool   // an endpoint has failed too often in a row
	wake     chan struct{} // Run has something to do
	journal  journal
	unsure   pending[policy.Take] // may have been recorded in vain
	outcomes pending[outcome]     // of reservations that the store may not know yet
	replicas atomic.Int64
	fewer    fewer // for Run alone
	failing  atomic.Pointer[failing]
	opened   atomic.Bool // and not yet closed again
}

// failing is what failed last.
type failing struct {
	endpoint string
	err      error
}

// failures counts the failures in a row of each endpoint. Those of all together say little about a cluster: one of its shards may be away while
// the others answer.
type failures struct {
	any   atomic.Bool
	mu    sync.Mutex
	count map[string]int
}

// mostFailing bounds the endpoints that are counted: Envoy's log may name any.
const mostFailing = 4096

func (f *failures) add(endpoint string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil || len(f.count) >= mostFailing {
		f.count = make(map[string]int)
	}
	f.count[endpoint]++
	f.any.Store(true)
	return f.count[endpoint]
}

func (f *failures) end(endpoint string) {
	if !f.any.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.count, endpoint)
	f.any.Store(len(f.count) > 0)
}

// errAway says that the breaker is not closed, errBusy that too many calls are under way.
var (
	errAway = errors.New("the store is away")
	errBusy = errors.New("the store has too many calls under way")
)

// When the breaker opens and tries to close.
const (
	failuresInARow = 5  // of one endpoint
	leastCalls     = 20 // for which the share of failures, at least half, says something
	countedFor     = 10 * time.Second
	openFor        = 500 * time.Millisecond
	stepsToClose   = 4 // those of tryToClose
	probeEvery     = 200 * time.Millisecond
	aliveEvery     = 2 * time.Second
	aliveFor       = 10 * time.Second
	// patience is the deadline of calls that no decision waits for: they may have to connect first.
	patience = time.Second
)

// NewGuard makes a Guard whose breaker is closed. Run must be called for it to do its work.
func NewGuard(c GuardConfig) *Guard {
	if c.Timeout <= 0 {
		c.Timeout = 50 * time.Millisecond
	}
	if c.MaxCalls <= 0 {
		c.MaxCalls = 1024
	}
	if c.MaxJournal <= 0 {
		c.MaxJournal = 1 << 16
	}
	if c.Changed == nil {
		c.Changed = func(BreakerState) {}
	}
	g := &Guard{config: c, wake: make(chan struct{}, 1), journal: journal{most: c.MaxJournal}, unsure: pending[policy.Take]{most: c.MaxJournal}, outcomes: pending[outcome]{most: c.MaxJournal}}
	g.replicas.Store(1)
	g.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "store",
		MaxRequests: stepsToClose,
		Interval:    countedFor, BucketPeriod: time.Second,
		Timeout: jittered(openFor), // replicas that lost the store together do not come back together
		ReadyToTrip: func(n gobreaker.Counts) bool {
			return g.trip.Swap(false) || n.Requests >= leastCalls && 2*n.TotalFailures >= n.Requests
		},
		IsSuccessful:  func(err error) bool { return err == nil || errors.Is(err, policy.ErrStoreFull) },
		OnStateChange: func(_ string, _, to gobreaker.State) { g.changed(to) },
	})
	g.changed(gobreaker.StateClosed)
	return g
}

// jittered is a duration between three and five quarters of d.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2)
}

// changed tells of a state. Failed attempts to close are not logged: the store is away, as was said.
func (g *Guard) changed(to gobreaker.State) {
	g.closed.Store(to == gobreaker.StateClosed)
	switch to {
	case gobreaker.StateClosed:
		g.trip.Store(false)
		g.config.Changed(Closed)
		if g.opened.Swap(false) {
			g.config.Logger.Info("the store is back: decisions go by it again")
		}
	case gobreaker.StateHalfOpen:
		g.config.Changed(HalfOpen)
	case gobreaker.StateOpen:
		g.config.Changed(Open)
		if !g.opened.Swap(true) {
			attributes := []any{"breaker", "store"}
			if f := g.failing.Load(); f != nil {
				attributes = append(attributes, "error", f.err)
			}
			g.config.Logger.Warn("the store is away: onStoreFailure decides without it", attributes...)
		}
		g.nudge()
	}
}

// State is the state of the breaker.
func (g *Guard) State() BreakerState {
	switch g.breaker.State() {
	case gobreaker.StateClosed:
		return Closed
	case gobreaker.StateHalfOpen:
		return HalfOpen
	}
	return Open
}

// nudge tells Run that there is something to do.
func (g *Guard) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// call runs one call to the store with a deadline of its own: a caller that hangs up does not end it.
func (g *Guard) call(endpoint string, do func(ctx context.Context) error) error {
	if !g.closed.Load() {
		return errAway
	}
	return g.execute(endpoint, do)
}

func (g *Guard) execute(endpoint string, do func(ctx context.Context) error) error {
	_, err := g.breaker.Execute(func() (none struct{}, err error) {
		defer g.underWay.Add(-1)
		if g.underWay.Add(1) > int64(g.config.MaxCalls) {
			err = errBusy
		} else {
			err = do(g.timely())
		}
		if err == nil || errors.Is(err, policy.ErrStoreFull) {
			g.inARow.end(endpoint)
			return none, err
		}
		g.failing.Store(&failing{endpoint, err})
		if g.inARow.add(endpoint) >= failuresInARow {
			g.inARow.end(endpoint)
			g.trip.Store(true)
		}
		return none, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		err = errAway
	}
	return err
}

// moment is the calls that begin at about the same time: they share a deadline, because a timer for each would cost a tenth of the call.
type moment struct {
	context.Context
	release func()    // not needed: the deadline releases what the context holds
	ends    time.Time // for calls that begin; those that have begun go on
}

// timely is the context of a call that begins now. It ends at the timeout, or up to a fiftieth of it earlier.
func (g *Guard) timely() context.Context {
	now := time.Now()
	if m := g.moment.Load(); m != nil && now.Before(m.ends) {
		return m
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Timeout)
	m := &moment{ctx, cancel, now.Add(g.config.Timeout / 50)}
	g.moment.Store(m)
	return m
}

// mayHaveHappened says whether a call that failed with this error may have been carried out, or may yet be.
func mayHaveHappened(err error) bool {
	for _, sure := range []error{errAway, errBusy, errLate, errNotConnected, policy.ErrStoreFull} {
		if errors.Is(err, sure) {
			return false
		}
	}
	_, answered := rueidis.IsRedisErr(err)
	return !answered
}

// Take implements policy.Store.
func (g *Guard) Take(ctx context.Context, t *policy.Take) (taken policy.Taken, err error) {
	known := g.known(ctx, t)
	if known.Retry || known.Duplicate && (known.InFlight || !t.Tag) {
		return known, nil
	}
	asked := t
	if known.Duplicate && t.Reservation > 0 {
		unreserved := *t // nobody would end the reservation of a duplicate
		unreserved.Reservation, asked = 0, &unreserved
	}
	err = g.call(t.Endpoint, func(ctx context.Context) (err error) {
		taken, err = g.config.Shared.Take(ctx, asked)
		return err
	})
	if err != nil {
		if mayHaveHappened(err) && !t.Peek {
			// Whoever asks is told that there is no verdict, so that a record would be wrong.
			g.unsure.add(clone(t))
			g.nudge()
		}
		return policy.Taken{}, err
	}
	taken.Duplicate = taken.Duplicate || known.Duplicate
	return taken, nil
}

// known is what Local remembers of a delivery that the store may not have been told yet.
func (g *Guard) known(ctx context.Context, t *policy.Take) policy.Taken {
	if len(t.Messages) == 0 || g.journal.len() == 0 {
		return policy.Taken{}
	}
	peek := *t
	peek.Peek, peek.Tag, peek.Buckets = true, false, nil
	known, err := g.config.Local.Take(ctx, &peek)
	if err == nil && known.Retry && !t.Peek {
		// A peek does not hand the record over to the retry, which may be let through.
		peek.Peek = false
		known, err = g.config.Local.Take(ctx, &peek)
		if err == nil && !known.Retry && !known.Duplicate { // it was taken back just now
			_ = g.config.Local.Release(ctx, &peek)
			return policy.Taken{}
		}
	}
	if err != nil {
		return policy.Taken{}
	}
	return known
}

// Release implements policy.Store. What cannot be released now is released when the store is back.
func (g *Guard) Release(ctx context.Context, t *policy.Take) error {
	if g.journal.len() > 0 {
		if err := g.config.Local.Release(ctx, t); err != nil {
			return err
		}
	}
	err := g.call(t.Endpoint, func(ctx context.Context) error { return g.config.Shared.Release(ctx, t) })
	if err != nil {
		g.unsure.add(clone(t))
		g.nudge()
	}
	return err
}

// Settle implements policy.Store. What cannot be settled now is settled when the store is back, if the reservation stands then. What the store does
// not know may have been reserved here or elsewhere while it was away, and not be written back yet: it is asked again for a while.
func (g *Guard) Settle(ctx context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (settled bool, err error) {
	err = g.call(endpoint, func(ctx context.Context) (err error) {
		settled, err = g.config.Shared.Settle(ctx, now, endpoint, token, confirmed)
		return err
	})
	known := err == nil && settled
	if !known {
		g.outcomes.add(&outcome{endpoint: endpoint, token: token, confirmed: confirmed})
	}
	if err != nil {
		g.nudge()
	}
	if here, err := g.config.Local.Settle(ctx, now, endpoint, token, confirmed); err == nil && here {
		return true, nil
	}
	return known, err
}

// outcome is that of a reservation.
type outcome struct {
	endpoint  string
	token     policy.Token
	confirmed bool
	until     time.Time // when to give up, once the store has said that it does not know it
}

// outcomesFor is how long the store is asked for a reservation that it does not know: long enough for another process to notice that it is back.
const outcomesFor = 10 * time.Second

// settle tells the store of an outcome; open: it does not know the reservation yet.
func (g *Guard) settle(ctx context.Context, o *outcome) (verdict, error) {
	now := time.Now()
	settled, err := g.config.Shared.Settle(ctx, now, o.endpoint, o.token, o.confirmed)
	switch {
	case err != nil:
		return open, err
	case settled:
		return kept, nil
	case o.until.IsZero():
		o.until = now.Add(outcomesFor)
	case !now.Before(o.until):
		return gone, nil
	}
	return open, nil
}

// Replicas is the number of processes that share the store: the last that was known, while it is away.
func (g *Guard) Replicas() int {
	if g.config.Replicas > 0 {
		return g.config.Replicas
	}
	return max(1, int(g.replicas.Load()))
}

// Stats counts what the store has still to be told.
func (g *Guard) Stats() []Stats {
	return []Stats{{Kind: "journal", Keys: g.journal.len(), Evictions: g.journal.dropped.Load()}}
}

// Run asks whether the store is back while it is away, brings it up to date, and notes that this process is alive, until ctx ends. What is left then the
// store is told at last, if it is there.
func (g *Guard) Run(ctx context.Context) {
	timer := time.NewTimer(0) // the first sign of life is due at once
	defer timer.Stop()
	alive := time.Now()
	for {
		select {
		case <-ctx.Done():
		case <-g.wake:
		case <-timer.C:
		}
		if ctx.Err() != nil {
			if g.breaker.State() == gobreaker.StateClosed {
				_ = g.catchUp(context.WithoutCancel(ctx))
			}
			return
		}
		wait := jittered(probeEvery)
		if g.breaker.State() == gobreaker.StateClosed {
			if now := time.Now(); !now.Before(alive) {
				alive = now.Add(jittered(aliveEvery))
				if g.sign(ctx) != nil {
					g.fewer = fewer{}
					alive = now.Add(jittered(probeEvery)) // is it away?
				}
			}
			if err := g.catchUp(ctx); err == nil {
				wait = time.Until(alive)
			}
		} else {
			g.tryToClose(ctx)
			g.fewer, alive = fewer{}, time.Now()
		}
		timer.Reset(max(wait, time.Millisecond))
	}
}

// sign gives a sign of life and learns how many others have. A store that was not there at the start is connected to first.
func (g *Guard) sign(ctx context.Context) error {
	return g.execute(aliveKey, func(timely context.Context) error {
		patient, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := g.config.Shared.Connect(patient); err != nil {
			return err
		}
		ctx := timely
		n, err := g.config.Shared.Alive(ctx, aliveFor)
		if err == nil {
			g.counted(int64(n))
		}
		return err
	})
}

// counted takes the number of processes that are alive. One that is lower counts once it has stood for as long as a sign of life does: a store that was
// restarted empty has not heard from all yet, and may be away again before it has.
func (g *Guard) counted(n int64) {
	now := time.Now()
	switch {
	case n >= g.replicas.Load():
		g.replicas.Store(n)
		g.fewer = fewer{}
	case g.fewer.since.IsZero():
		g.fewer = fewer{now, n}
	default:
		if g.fewer.most = max(g.fewer.most, n); now.Sub(g.fewer.since) >= aliveFor {
			g.replicas.Store(g.fewer.most)
			g.fewer = fewer{}
		}
	}
}

// fewer is since when, without a gap, fewer processes than before are alive, and how many at most.
type fewer struct {
	since time.Time
	most  int64
}

// tryToClose probes the store where it failed last. Once it answers in time it is brought up to date, and only then the breaker closes: it
// counts each step, and one failure opens it again.
func (g *Guard) tryToClose(ctx context.Context) {
	endpoint := aliveKey
	if f := g.failing.Load(); f != nil {
		endpoint = f.endpoint
	}
	if g.breaker.State() == gobreaker.StateOpen {
		return
	}
	probe := func(ctx context.Context) error { return g.config.Shared.Probe(ctx, endpoint) }
	for _, step := range []func(context.Context) error{
		// The first call may have to connect, which takes longer than a decision waits.
		func(context.Context) error { return g.connect(ctx, endpoint) },
		probe,
		func(context.Context) error { return g.catchUp(ctx) },
		probe,
	} {
		if g.execute(endpoint, step) != nil {
			return
		}
	}
	_ = g.catchUp(ctx) // what came meanwhile; what is left is tried again
}

// connect makes sure that there is a connection to where an endpoint's keys are.
func (g *Guard) connect(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := g.config.Shared.Connect(ctx); err != nil {
		return err
	}
	return g.config.Shared.Probe(ctx, endpoint)
}

// catchUp releases what may have been recorded in vain, writes back what Local has recorded and then settles what is open. It ends at the first failure
// and goes on from there the next time.
func (g *Guard) catchUp(ctx context.Context) error {
	if err := g.unsure.each(func(t *policy.Take) (verdict, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return gone, g.config.Shared.Release(ctx, t)
	}); err != nil {
		return err
	}
	lost := g.journal.forgotten()
	written, err := g.journal.each(func(e *entry) (verdict, error) { return g.writeBack(ctx, e) })
	if written > 0 || lost > 0 {
		g.config.Logger.Info("deliveries written back to the store", "written", written, "beyond_the_bound", lost)
	}
	if err != nil {
		return err
	}
	return g.outcomes.each(func(o *outcome) (verdict, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return g.settle(ctx, o)
	})
}

// writeBack tells the store of a delivery that Local has recorded, if it stands: of a reservation that is open as one with the same token, because
// its outcome may come to any process.
func (g *Guard) writeBack(ctx context.Context, e *entry) (verdict, error) {
	t, now := e.take, time.Now()
	left := t.Time.Add(max(t.Window, t.Reservation)).Sub(now)
	if left <= 0 {
		return gone, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	peek := policy.Take{Time: now, Endpoint: t.Endpoint, Messages: t.Messages, Peek: true}
	local, err := g.config.Local.Take(ctx, &peek)
	if err != nil || !local.Duplicate {
		return gone, nil // released
	}
	// The call that failed may have recorded it. Its record goes first: it may be released later, and with it what was written back.
	if err := g.config.Shared.Release(ctx, t); err != nil {
		return open, err
	}
	again := policy.Take{Time: now, Endpoint: t.Endpoint, Messages: t.Messages, Window: left}
	if now.Sub(t.Time) < policy.StreamWindow {
		again.Stream = t.Stream
	}
	if local.InFlight {
		again.Reservation = local.RetryAfter
	}
	if _, err = g.config.Shared.TakeAs(ctx, &again, e.token); err != nil {
		return open, fmt.Errorf("writing back: %w", err)
	}
	if local, err = g.config.Local.Take(ctx, &peek); err == nil && !local.Duplicate { // taken back meanwhile
		return gone, g.config.Shared.Release(ctx, &again)
	}
	return kept, nil
}

// clone is a Take that the caller may go on to use.
func clone(t *policy.Take) *policy.Take {
	c := *t
	c.Messages, c.Buckets = slices.Clone(t.Messages), nil
	return &c
}

// Local is the Local of the configuration. What is recorded through it is written back to the store.
func (g *Guard) Local() policy.Store { return &recording{g.config.Local, &g.journal} }

// recording is a Store that notes what it records.
type recording struct {
	policy.Store
	journal *journal
}

// Take implements policy.Store.
func (r *recording) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	taken, err := r.Store.Take(ctx, t)
	if err == nil && len(t.Messages) > 0 && !t.Peek && !taken.Retry && !taken.Duplicate && taken.Limited == 0 {
		r.journal.add(&entry{clone(t), taken.Token})
	}
	return taken, err
}
