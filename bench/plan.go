package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// row is one line of the report: something that is measured once in each round.
type row struct {
	table   table
	name    string
	size    int
	calls   int // that are open at once, under overload
	measure func(context.Context) (sample, error)
	samples []sample // one a round
}

// table is where a row is reported.
type table string

const (
	checksTable   table = "TCP"
	socketTable   table = "unix socket"
	envoyTable    table = "through Envoy"
	overloadTable table = "overload"
	memoryTable   table = "memory"
	reloadTable   table = "reload"
)

// The names of rows that the bars compare.
const (
	noopRow      = "no-op"
	bareRow      = "no filter"
	signatureRow = "signature only"
	fullRow      = "full policy"
	storeRow     = "full policy, shared store"
	oneOfManyRow = "full policy, 10,000 policies"
	forgedRow    = "denied: bad signature"
	addressRow   = "denied: unknown address"
	nobodyRow    = "denied: no policy"
	peakRow      = "peak"
	tenfoldRow   = "10x overload"
	envoysRow    = "ten Envoys, each at its circuit breaker"
	bodiesRow    = "64 bodies of 1 MiB at once"
	reloadRow    = "reload of 10,000 policies"
)

// sample is what one measurement came to.
type sample struct {
	cpu         time.Duration // of the process that the row is about, for each call
	authz       time.Duration // through Envoy: CPU time of the authorizer for each call
	own         time.Duration // CPU time of this process for each call
	rate        float64       // calls a second that ended as wanted
	allocations float64       // for each call
	peak        int64         // resident memory at the most, in bytes
	storeless   float64       // decisions that the shared store did not answer for, as a share
	latencies   []time.Duration
	calls       [outcomes]int64
}

const (
	small  = 2 << 10
	medium = 64 << 10
	large  = 1 << 20
	many   = 10_000 // policies
)

// plan lists the rows in the order of a round. Rows that are compared stand close together.
func (b *bench) plan() []*row {
	noop := once(func(ctx context.Context) (*server, error) { return b.startNoop(ctx) })
	noopSocket := once(func(ctx context.Context) (*server, error) {
		s, err := noop(ctx)
		if err != nil {
			return nil, err
		}
		return b.noopSocket(ctx, s)
	})
	hook := func(h hookauthz) func(context.Context) (*server, error) {
		return once(func(ctx context.Context) (*server, error) { return b.startHookauthz(ctx, h) })
	}
	full := hook(hookauthz{policies: 1, spec: fullSpec})
	signature := hook(hookauthz{policies: 1, spec: signatureSpec})
	socket := hook(hookauthz{policies: 1, spec: fullSpec, socket: true})
	hundred := hook(hookauthz{policies: 100, spec: fullSpec})
	tenThousand := hook(hookauthz{policies: many, spec: fullSpec})
	shared := once(func(ctx context.Context) (*server, error) {
		store, url, err := b.startStore(ctx)
		if err != nil {
			return nil, err
		}
		return b.startHookauthz(ctx, hookauthz{policies: 1, spec: fullSpec, store: store, storeURL: url})
	})

	var rows []*row
	add := func(t table, name string, size int, measure func(context.Context) (sample, error)) {
		rows = append(rows, &row{table: t, name: name, size: size, measure: measure})
	}
	allowed := func(t table, name string, s func(context.Context) (*server, error), d delivery) {
		add(t, name, d.size, b.checks(s, d, true))
	}
	denied := func(name string, d delivery) {
		d.size = small
		add(checksTable, name, small, b.checks(full, d, false))
	}

	allowed(checksTable, storeRow, shared, delivery{size: small})
	allowed(checksTable, signatureRow, signature, delivery{size: small})
	allowed(checksTable, noopRow, noop, delivery{size: small})
	allowed(checksTable, fullRow, full, delivery{size: small})
	allowed(checksTable, oneOfManyRow, tenThousand, delivery{size: small, only: many / 2})
	allowed(checksTable, "full policy, 100 policies", hundred, delivery{size: small, only: 50})
	allowed(checksTable, "full policy, 10,000 policies in turn", tenThousand, delivery{size: small, policies: many})
	denied(forgedRow, delivery{forged: true})
	denied(addressRow, delivery{address: "198.51.100.1"})
	denied(nobodyRow, delivery{endpoint: "nobody"})
	for _, size := range []int{medium, large} {
		allowed(checksTable, storeRow, shared, delivery{size: size})
		allowed(checksTable, signatureRow, signature, delivery{size: size})
		allowed(checksTable, noopRow, noop, delivery{size: size})
		allowed(checksTable, fullRow, full, delivery{size: size})
	}
	for _, size := range []int{small, medium, large} {
		allowed(socketTable, noopRow, noopSocket, delivery{size: size})
		allowed(socketTable, fullRow, socket, delivery{size: size})
	}
	proxy := once(func(ctx context.Context) (*envoy, error) {
		n, err := noop(ctx)
		if err != nil {
			return nil, err
		}
		f, err := full(ctx)
		if err != nil {
			return nil, err
		}
		return b.startEnvoy(ctx, n, f)
	})
	for _, size := range []int{small, medium, large} {
		add(envoyTable, bareRow, size, b.requests(proxy, nil, bareListener, size))
		add(envoyTable, noopRow, size, b.requests(proxy, noop, noopListener, size))
		add(envoyTable, fullRow, size, b.requests(proxy, full, hookListener, size))
	}
	pinned := once(b.startPinned)
	for _, o := range []struct {
		name  string
		calls int
	}{{peakRow, peakCalls}, {tenfoldRow, 10 * peakCalls}, {envoysRow, 10 * envoyCalls}} {
		add(overloadTable, o.name, small, b.overload(pinned, o.calls))
		rows[len(rows)-1].calls = o.calls
	}
	add(memoryTable, bodiesRow, large, b.bodies)
	add(reloadTable, reloadRow, 0, b.reload(tenThousand))

	return slices.DeleteFunc(rows, func(r *row) bool {
		return r.size != 0 && !slices.Contains(b.sizes, r.size) || !b.rows.MatchString(r.String())
	})
}

func (r *row) String() string {
	if r.size == 0 {
		return fmt.Sprintf("%s, %s", r.table, r.name)
	}
	return fmt.Sprintf("%s, %s, %s", r.table, sizeText(r.size), r.name)
}

func sizeText(size int) string {
	switch {
	case size%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", size>>20)
	case size%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", size>>10)
	}
	return fmt.Sprintf("%d bytes", size)
}

// once starts something when it is needed first.
func once[T any](begin func(context.Context) (T, error)) func(context.Context) (T, error) {
	var made *T
	return func(ctx context.Context) (T, error) {
		if made == nil {
			v, err := begin(ctx)
			if err != nil {
				return v, err
			}
			made = &v
		}
		return *made, nil
	}
}

// find is the row of this name, nil where it is not measured.
func find(rows []*row, t table, name string, size int) *row {
	for _, r := range rows {
		if r.table == t && r.name == name && r.size == size {
			return r
		}
	}
	return nil
}

// measureRows measures all rows, round by round. In every other round they go backwards, so that what comes before a row, and how long ago
// the row it is compared with was, evens out.
func (b *bench) measureRows(ctx context.Context, rows []*row) error {
	begin, done := time.Now(), 0
	for round := range b.rounds {
		order := slices.Clone(rows)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, r := range order {
			b.tell(fmt.Sprintf("round %d of %d, %s left: ", round+1, b.rounds, left(begin, done, b.rounds*len(rows))), r.String())
			s, err := r.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
			r.samples = append(r.samples, s)
			done++
		}
	}
	return nil
}

// left is how long the rest takes if it goes on as it went so far.
func left(begin time.Time, done, all int) string {
	if done == 0 {
		return "?"
	}
	return (time.Since(begin) * time.Duration(all-done) / time.Duration(done)).Round(time.Second).String()
}
