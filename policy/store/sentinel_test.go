package store_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

// A primary that a sentinel watches dies: its replica is found, with what was recorded.
func TestRedisSentinelFailover(t *testing.T) {
	primary, replica := redistest.Start(t), redistest.Start(t)
	replica.Do(t, "REPLICAOF", "127.0.0.1", primary.Address()[len("127.0.0.1:"):])
	redistest.Eventually(t, "the replica follows", func() bool { return strings.Contains(replica.Do(t, "INFO", "replication"), "master_link_status:up") })
	sentinel := redistest.StartSentinel(t, "main", primary)
	redistest.Eventually(t, "the sentinel knows the replica", func() bool { return strings.Contains(sentinel.Do(t, "INFO", "sentinel"), "slaves=1") })

	r := open(t, "redis://"+sentinel.Address()+"?sentinel=main", nil)
	g := store.NewGuard(store.GuardConfig{Shared: r, Local: store.NewMemory(store.MemoryConfig{}), Timeout: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	var run sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	run.Go(func() { g.Run(ctx) })
	defer run.Wait()
	defer cancel()
	deliver := func(n int) (policy.Taken, error) {
		take := delivery(n)
		take.Time, take.Window = time.Now(), time.Hour
		return g.Take(t.Context(), take)
	}
	const deliveries = 10
	for n := range deliveries {
		redistest.Eventually(t, "a delivery is recorded", func() bool { taken, err := deliver(n); return err == nil && !taken.Duplicate })
	}
	redistest.Replicated(t, primary, replica)
	primary.Kill()
	redistest.Eventually(t, "the replica takes over", func() bool { return strings.Contains(replica.Do(t, "INFO", "replication"), "role:master") })
	for n := range deliveries {
		var got policy.Taken
		redistest.Eventually(t, "the store answers", func() (ok bool) {
			var err error
			got, err = deliver(n)
			return err == nil
		})
		if !got.Duplicate {
			t.Errorf("delivery %d: got %+v, want a duplicate", n, got)
		}
	}
}

func TestRedisSentinelRefuses(t *testing.T) {
	sentinel := redistest.StartSentinel(t, "main", redistest.Start(t))
	for _, tt := range []struct{ name, url, want, fix string }{
		{"another name", "redis://" + sentinel.Address() + "?sentinel=other", "No such master with that name", "name the primary that the sentinels watch: ?sentinel=NAME"},
		{"no name", "redis://" + sentinel.Address(), "it is a sentinel", "name the primary that it watches: ?sentinel=NAME"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := store.ParseRedisURL(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			r := store.NewRedis(c)
			defer r.Close()
			err = r.Connect(within(t, 5*time.Second))
			var refused *store.Refused
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) || refused.Fix != tt.fix {
				t.Errorf("got %v (%+v), want %q and %q", err, refused, tt.want, tt.fix)
			}
		})
	}
}
