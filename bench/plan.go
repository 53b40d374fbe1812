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
	measure measurement
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
	fullManyRow  = "full policy, 64 at once"
	storeManyRow = "full policy, shared store, 64 at once"
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
	busy   = 64     // checks at once that keep a server busy although each of them waits for a store
)

// lazy starts something when it is needed first.
type lazy[T any] func(context.Context) (T, error)

// measurement measures a row once.
type measurement func(context.Context) (sample, error)

// plan lists the rows in the order of a round. Rows that are compared stand close together.
func (b *bench) plan() []*row {
	noop := once(b.startNoop)
	full := b.lazily(hookauthz{policies: 1, spec: fullSpec})
	tenThousand := b.lazily(hookauthz{policies: many, spec: fullSpec})
	rows := slices.Concat(
		b.planChecks(noop, full, tenThousand),
		b.planSockets(noop),
		b.planEnvoy(noop, full),
		b.planOverload(),
		[]*row{
			{table: memoryTable, name: bodiesRow, size: large, measure: b.bodies},
			{table: reloadTable, name: reloadRow, measure: b.reload(tenThousand)},
		},
	)
	return slices.DeleteFunc(rows, func(r *row) bool {
		return r.size != 0 && !slices.Contains(b.sizes, r.size) || !b.rows.MatchString(r.String())
	})
}

func (b *bench) planChecks(noop, full, tenThousand lazy[*server]) (rows []*row) {
	add := func(name string, s lazy[*server], d delivery, allowed bool) {
		rows = append(rows, &row{table: checksTable, name: name, size: d.size, measure: b.checks(s, d, b.concurrency, allowed)})
	}
	signature := b.lazily(hookauthz{policies: 1, spec: signatureSpec})
	hundred := b.lazily(hookauthz{policies: 100, spec: fullSpec})
	shared := b.lazily(hookauthz{policies: 1, spec: fullSpec, shared: true})
	for _, size := range []int{small, medium, large} {
		add(storeRow, shared, delivery{size: size}, true)
		add(signatureRow, signature, delivery{size: size}, true)
		add(noopRow, noop, delivery{size: size}, true)
		add(fullRow, full, delivery{size: size}, true)
		if size != small {
			continue
		}
		rows = append(rows,
			&row{table: checksTable, name: storeManyRow, size: size, measure: b.checks(shared, delivery{size: size}, busy, true)},
			&row{table: checksTable, name: fullManyRow, size: size, measure: b.checks(full, delivery{size: size}, busy, true)})
		add(oneOfManyRow, tenThousand, delivery{size: size, only: many / 2}, true)
		add("full policy, 100 policies", hundred, delivery{size: size, only: 50}, true)
		add("full policy, 10,000 policies in turn", tenThousand, delivery{size: size, policies: many}, true)
		add(forgedRow, full, delivery{size: size, forged: true}, false)
		add(addressRow, full, delivery{size: size, address: "198.51.100.1"}, false)
		add(nobodyRow, full, delivery{size: size, endpoint: "nobody"}, false)
	}
	return rows
}

func (b *bench) planSockets(noop lazy[*server]) (rows []*row) {
	noopSocket := once(func(ctx context.Context) (*server, error) {
		s, err := noop(ctx)
		if err != nil {
			return nil, err
		}
		return b.noopSocket(ctx, s)
	})
	full := b.lazily(hookauthz{policies: 1, spec: fullSpec, socket: true})
	for _, size := range []int{small, medium, large} {
		rows = append(rows,
			&row{table: socketTable, name: noopRow, size: size, measure: b.checks(noopSocket, delivery{size: size}, b.concurrency, true)},
			&row{table: socketTable, name: fullRow, size: size, measure: b.checks(full, delivery{size: size}, b.concurrency, true)})
	}
	return rows
}

func (b *bench) planEnvoy(noop, full lazy[*server]) (rows []*row) {
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
		rows = append(rows,
			&row{table: envoyTable, name: bareRow, size: size, measure: b.requests(proxy, nil, bareListener, size)},
			&row{table: envoyTable, name: noopRow, size: size, measure: b.requests(proxy, noop, noopListener, size)},
			&row{table: envoyTable, name: fullRow, size: size, measure: b.requests(proxy, full, hookListener, size)})
	}
	return rows
}

func (b *bench) planOverload() (rows []*row) {
	pinned := once(b.startPinned)
	for _, r := range []*row{{name: peakRow, calls: peakCalls}, {name: tenfoldRow, calls: 10 * peakCalls}, {name: envoysRow, calls: 10 * envoyCalls}} {
		r.table, r.size, r.measure = overloadTable, small, b.overload(pinned, r.calls)
		rows = append(rows, r)
	}
	return rows
}

func (b *bench) lazily(h hookauthz) lazy[*server] {
	return once(func(ctx context.Context) (*server, error) { return b.startHookauthz(ctx, h) })
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

// once begins when it is called first, and gives the same from then on.
func once[T any](begin lazy[T]) lazy[T] {
	var made *T
	return func(ctx context.Context) (T, error) {
		if made != nil {
			return *made, nil
		}
		v, err := begin(ctx)
		if err == nil {
			made = &v
		}
		return v, err
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
