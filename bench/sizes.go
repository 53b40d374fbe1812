package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/store"
)

// sizes is what is measured once: memory that does not depend on the load.
type sizes struct {
	one, many policiesMemory // of servers with 1 and 10,000 policies that have just started
	keyBytes  float64        // of heap for each of 1,000,000 rate buckets
}

// policiesMemory is that of a whole server.
type policiesMemory struct{ resident, live int64 }

func (b *bench) measureSizes(ctx context.Context) (sizes, error) {
	var s sizes
	if !b.rows.MatchString(string(memoryTable)) {
		return s, nil
	}
	b.tell("", "memory of policies and of limiter keys")
	var err error
	if s.one, err = b.policiesMemory(ctx, 1); err != nil {
		return s, err
	}
	if s.many, err = b.policiesMemory(ctx, many); err != nil {
		return s, err
	}
	s.keyBytes, err = keyMemory(ctx)
	return s, err
}

func (b *bench) policiesMemory(ctx context.Context, count int) (policiesMemory, error) {
	s, err := b.startHookauthz(ctx, hookauthz{policies: count, spec: fullSpec, flags: []string{"--pprof"}})
	if err != nil {
		return policiesMemory{}, err
	}
	defer b.endServer(s)
	now, _, err := memory(s.pid())
	if err != nil {
		return policiesMemory{}, err
	}
	if _, err := ask(ctx, "http://"+s.admin+"/debug/pprof/heap?gc=1"); err != nil {
		return policiesMemory{}, err
	}
	m, err := s.metrics(ctx)
	return policiesMemory{resident: now, live: int64(m["go_memstats_heap_alloc_bytes"])}, err
}

// keyMemory fills the store that serve has by default with rate buckets, as 1,000,000 senders make them at four endpoints.
func keyMemory(ctx context.Context) (float64, error) {
	const endpoints, perEndpoint = 4, 250_000
	limit, err := rate.Parse("10/hour")
	if err != nil {
		return 0, err
	}
	m := store.NewMemory(store.MemoryConfig{})
	before := liveHeap()
	now := time.Now()
	bucket := make([]policy.Bucket, 1)
	for e := range endpoints {
		endpoint := fmt.Sprintf("endpoint-%d", e)
		for i := range perEndpoint {
			bucket[0] = policy.Bucket{Limit: limit}
			binary.BigEndian.PutUint64(bucket[0].Key[:], uint64(i)*0x9e3779b97f4a7c15)
			if taken, err := m.Take(ctx, &policy.Take{Time: now, Endpoint: endpoint, Buckets: bucket}); err != nil || taken.Limited > 0 {
				return 0, fmt.Errorf("a new limiter key: %+v (%w)", taken, err)
			}
		}
	}
	grown := liveHeap() - before
	for _, kind := range m.Stats() {
		if kind.Kind == "rate" && kind.Keys != endpoints*perEndpoint {
			return 0, fmt.Errorf("%d limiter keys are held, want %d", kind.Keys, endpoints*perEndpoint)
		}
	}
	return float64(grown) / (endpoints * perEndpoint), nil
}

func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers let go
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
