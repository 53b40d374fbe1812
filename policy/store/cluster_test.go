package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
	"github.com/hookauthz/hookauthz/policy/store/storetest"
)

func TestRedisCluster(t *testing.T) {
	nodes := redistest.StartCluster(t, false)
	url := "redis://" + nodes[0].Address() + "?cluster=true"
	r := open(t, url, (*store.RedisConfig).GoByCallersClock)
	storetest.Run(t, func(*testing.T) policy.Store { return r })
	keepsIncidents(t, r)
	for i, n := range nodes {
		if n.Calls(t, "evalsha") == 0 {
			t.Errorf("node %d has run nothing: the keys are not spread", i)
		}
	}
}

// A primary dies, and its replica takes over: what was recorded and replicated is remembered.
func TestRedisClusterFailover(t *testing.T) {
	nodes := redistest.StartCluster(t, true)
	r := open(t, "redis://"+nodes[0].Address()+"?cluster=true&addr="+nodes[1].Address(), nil)
	g := store.NewGuard(store.GuardConfig{Shared: r, Local: store.NewMemory(store.MemoryConfig{}), Timeout: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	var run sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	run.Go(func() { g.Run(ctx) })
	defer run.Wait()
	defer cancel()

	const endpoints = 30
	deliver := func(n int) (policy.Taken, error) {
		return g.Take(t.Context(), &policy.Take{Time: time.Now(), Endpoint: fmt.Sprint("endpoint-", n), Messages: delivery(n).Messages, Window: time.Hour})
	}
	for n := range endpoints {
		// A duplicate is what a call that came to no verdict has left: it is about to be released.
		redistest.Eventually(t, "a delivery is recorded", func() bool { taken, err := deliver(n); return err == nil && !taken.Duplicate })
	}
	redistest.Eventually(t, "all is replicated", func() bool {
		primary, replica := nodes[2].Do(t, "DBSIZE"), nodes[5].Do(t, "DBSIZE")
		return primary == replica && primary != ":0"
	})
	nodes[2].Kill()
	redistest.Eventually(t, "the replica takes over", func() bool { return strings.Contains(nodes[5].Do(t, "INFO", "replication"), "role:master") })
	for n := range endpoints {
		var got policy.Taken
		redistest.Eventually(t, "the store answers for every endpoint", func() (ok bool) {
			var err error
			got, err = deliver(n)
			return err == nil
		})
		if !got.Duplicate {
			t.Errorf("delivery %d: got %+v, want a duplicate", n, got)
		}
	}
}
