package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

// BenchmarkRedisTake is what a decision's call to the shared store costs this process, whatever the server needs for it: one limit and replay
// memory, 8 calls at once for each processor.
func BenchmarkRedisTake(b *testing.B) {
	r := open(b, redistest.Shared(b).URL(), nil)
	local := store.NewMemory(store.MemoryConfig{})
	for _, s := range []struct {
		name string
		policy.Store
	}{
		{"bare", withDeadline{r}},
		{"guarded", store.NewGuard(store.GuardConfig{Shared: r, Local: local, Timeout: time.Second, Logger: slog.New(slog.DiscardHandler)})},
	} {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8)
			before := cpu(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				t := &policy.Take{Endpoint: "bench", Window: 24 * time.Hour, Tag: true, Messages: make([]signature.MessageID, 1), Buckets: []policy.Bucket{{Key: key(1), Limit: rate.Limit{Count: 1e6, Period: time.Second, Burst: 1e6}}}}
				for i := 0; pb.Next(); i++ {
					t.Time = time.Now()
					t.Messages[0] = message(i % 32)
					t.Stream = fmt.Sprintf("%d-%p", i, t)
					if got, err := s.Take(b.Context(), t); err != nil || got.Limited > 0 {
						b.Errorf("got %+v, %v, want within the limit", got, err)
						return
					}
				}
			})
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpu is the time that this process has computed.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// withDeadline calls a store with a deadline, as the guard does.
type withDeadline struct{ policy.Store }

func (s withDeadline) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return s.Store.Take(ctx, t)
}
