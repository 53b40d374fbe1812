package store_test

import (
	"testing"
	"time"

	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/redistest"
)

// A swap takes place only where nobody else has written meanwhile.
func TestRedisIncidents(t *testing.T) {
	s := redistest.Start(t)
	keepsIncidents(t, open(t, s.URL(), nil))
	if got := s.Do(t, "TTL", "hookauthz:incidents"); got != ":-1" {
		t.Errorf("they live for %s, want for ever", got)
	}
	r := store.NewRedis(store.RedisConfig{Addresses: []string{s.Address()}})
	if _, err := r.LoadIncidents(within(t, time.Second)); err == nil {
		t.Error("a store that is not connected answers")
	}
}

func keepsIncidents(t *testing.T, r *store.Redis) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	if got, err := r.LoadIncidents(ctx); got != nil || err != nil {
		t.Fatalf("at first: %q, %v", got, err)
	}
	for _, c := range []struct {
		last, next string
		want       bool
	}{{"x", "one", false}, {"", "one", true}, {"", "two", false}, {"two", "three", false}, {"one", "two", true}} {
		if swapped, err := r.SwapIncidents(ctx, []byte(c.last), []byte(c.next)); swapped != c.want || err != nil {
			t.Errorf("from %q to %q: %t, %v; want %t", c.last, c.next, swapped, err, c.want)
		}
	}
	if got, err := r.LoadIncidents(ctx); string(got) != "two" || err != nil {
		t.Errorf("at last: %q, %v", got, err)
	}
}
