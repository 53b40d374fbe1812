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

// cluster starts three primaries, and a replica of each where replicated says so.
func cluster(t *testing.T, replicated bool) []*redistest.Server {
	t.Helper()
	nodes := make([]*redistest.Server, 3, 6)
	if replicated {
		nodes = nodes[:6]
	}
	for i := range nodes {
		nodes[i] = redistest.Start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-allow-replica-migration", "no")
	}
	for i, n := range nodes[:3] {
		n.Do(t, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(16384*i/3), fmt.Sprint(16384*(i+1)/3-1))
		n.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
	}
	for _, n := range nodes[1:] {
		n.Do(t, "CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(nodes[0].Port))
	}
	eventually(t, "every node knows all others", func() bool {
		for _, n := range nodes {
			if strings.Count(n.Do(t, "CLUSTER", "NODES"), "connected") != len(nodes) {
				return false
			}
		}
		return true
	})
	for i, n := range nodes[3:] {
		id := nodes[i].Do(t, "CLUSTER", "MYID")
		eventually(t, "a replica knows its primary", func() bool {
			answer, err := n.Ask("CLUSTER", "REPLICATE", id)
			return err == nil && answer == "+OK"
		})
	}
	for i, n := range nodes[3:] {
		eventually(t, "a replica follows", func() bool { return strings.Contains(n.Do(t, "INFO", "replication"), "master_link_status:up") })
		eventually(t, "a primary has its replica", func() bool { return strings.Contains(nodes[i].Do(t, "INFO", "replication"), "connected_slaves:1") })
	}
	eventually(t, "the cluster is up", func() bool {
		for _, n := range nodes {
			if !strings.Contains(n.Do(t, "CLUSTER", "INFO"), "cluster_state:ok") {
				return false
			}
		}
		return true
	})
	return nodes
}

// eventually polls a condition of another process.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it is not so that %s", what)
		}
	}
}

func TestRedisCluster(t *testing.T) {
	nodes := cluster(t, false)
	url := "redis://" + nodes[0].Address() + "?cluster=true"
	r := open(t, url, (*store.RedisConfig).GoByCallersClock)
	storetest.Run(t, func(*testing.T) policy.Store { return r })
	for i, n := range nodes {
		if n.Calls(t, "evalsha") == 0 {
			t.Errorf("node %d has run nothing: the keys are not spread", i)
		}
	}
}

// A primary dies, and its replica takes over: what was recorded and replicated is remembered.
func TestRedisClusterFailover(t *testing.T) {
	nodes := cluster(t, true)
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
		eventually(t, "a delivery is recorded", func() bool { _, err := deliver(n); return err == nil })
	}
	eventually(t, "all is replicated", func() bool {
		primary, replica := nodes[2].Do(t, "DBSIZE"), nodes[5].Do(t, "DBSIZE")
		return primary == replica && primary != ":0"
	})
	nodes[2].Kill()
	eventually(t, "the replica takes over", func() bool { return strings.Contains(nodes[5].Do(t, "INFO", "replication"), "role:master") })
	for n := range endpoints {
		var got policy.Taken
		eventually(t, "the store answers for every endpoint", func() (ok bool) {
			var err error
			got, err = deliver(n)
			return err == nil
		})
		if !got.Duplicate {
			t.Errorf("delivery %d: got %+v, want a duplicate", n, got)
		}
	}
}
