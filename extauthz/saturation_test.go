package extauthz

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
)

// The bounds show what a check under way takes of them, and that it was given back.
func TestSaturation(t *testing.T) {
	m := NewMetrics("test")
	entered, leave := make(chan struct{}), make(chan struct{})
	conn := dial(t, Config{Metrics: m, MaxBody: 1 << 20, MaxInflightBytes: 64 << 20, Decider: decides(func(context.Context, *policy.Request) policy.Decision {
		entered <- struct{}{}
		<-leave
		return policy.Denied(policy.NoPolicy)
	})})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := check(t, conn, time.Minute, withBody(500<<10)); err != nil {
			t.Errorf("checking: %v", err)
		}
	}()
	<-entered
	got := series(t, m)
	if bytes := got["hookauthz_inflight_bytes"]; bytes < 500<<10 || bytes > got["hookauthz_inflight_bytes_limit"] {
		t.Errorf("a body of 500 KiB takes %v of %v bytes", bytes, got["hookauthz_inflight_bytes_limit"])
	}
	if got["hookauthz_open_calls"] != 1 {
		t.Errorf("%v calls are open", got["hookauthz_open_calls"])
	}
	close(leave)
	<-done
	for deadline := time.Now().Add(30 * time.Second); got["hookauthz_inflight_bytes"] != 0 || got["hookauthz_open_calls"] != 0; got = series(t, m) {
		if time.Now().After(deadline) {
			t.Fatalf("%v bytes and %v calls remain", got["hookauthz_inflight_bytes"], got["hookauthz_open_calls"])
		}
	}
}

// The age of a delivery is that of its timestamp, also of one that is refused for it, and of none whose signature is wrong.
func TestTimestampAge(t *testing.T) {
	m := NewMetrics("test")
	set := policies(t, webhook(stripeScheme))
	var j journal
	conn := dial(t, Config{Decider: policy.NewEngine(set, policy.EngineConfig{Store: newStore()}), Metrics: m, Logger: j.logger()})
	for _, at := range []time.Time{noon.Add(-4 * time.Second), noon.Add(3 * time.Second), noon.Add(-time.Hour)} {
		ask(t, conn, signed(t, set, at, "{}").request(false))
	}
	forged := signed(t, set, noon, "{}")
	forged.body = []byte("[]")
	ask(t, conn, forged.request(false))
	j.wait(t, `"msg":"decision"`, 4)
	got := make(map[string]float64)
	for name, value := range histogram(t, m, "hookauthz_timestamp_age_seconds") {
		if value > 0 {
			got[name] = value
		}
	}
	if diff := cmp.Diff(map[string]float64{"-1": 1, "5": 1, "3600": 1}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// histogram is how many observations lie in each bucket and in none before, by its upper bound.
func histogram(t *testing.T, m *Metrics, name string) map[string]float64 {
	t.Helper()
	families, err := m.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		before := uint64(0)
		for _, b := range f.GetMetric()[0].GetHistogram().GetBucket() {
			out[strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)] = float64(b.GetCumulativeCount() - before)
			before = b.GetCumulativeCount()
		}
	}
	return out
}
