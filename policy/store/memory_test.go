package store_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/policy/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) policy.Store { return store.NewMemory(store.MemoryConfig{}) })
}

var start = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

func message(n int) (id signature.MessageID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15)
	return id
}

func key(n int) policy.Key { return policy.Key(message(n)) }

func delivery(n int) *policy.Take {
	return &policy.Take{Time: start, Endpoint: "e", Messages: []signature.MessageID{message(n)}, Window: time.Hour}
}

func spend(n int, l rate.Limit) *policy.Take {
	return &policy.Take{Time: start, Endpoint: "e", Buckets: []policy.Bucket{{Key: key(n), Limit: l}}}
}

func take(t testing.TB, m *store.Memory, take *policy.Take) policy.Taken {
	t.Helper()
	taken, err := m.Take(t.Context(), take)
	if err != nil {
		t.Fatalf("take: %v", err)
	}
	return taken
}

func stats(m *store.Memory) map[string]store.Stats {
	byKind := map[string]store.Stats{}
	for _, s := range m.Stats() {
		byKind[s.Kind] = s
	}
	return byKind
}

func TestDeliveriesAreCapped(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{MaxDeliveries: 3})
	two := delivery(0)
	two.Messages = append(two.Messages, message(1))
	take(t, m, two)
	brief := delivery(2)
	brief.Window = time.Minute
	take(t, m, brief)

	full := delivery(3)
	full.Stream, full.Buckets = "s", []policy.Bucket{{Key: key(0), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 1}}}
	for range 2 { // the first leaves nothing behind: no bucket is spent, and the second is no retry
		got, err := m.Take(t.Context(), full)
		if !errors.Is(err, policy.ErrStoreFull) || got != (policy.Taken{}) {
			t.Fatalf("got %+v, %v, want %v", got, err, policy.ErrStoreFull)
		}
	}
	for n := range 3 { // what is live is not forgotten
		if got := take(t, m, delivery(n)); !got.Duplicate {
			t.Errorf("message %d: got %+v, want a duplicate", n, got)
		}
	}
	other := delivery(3)
	other.Endpoint = "other"
	other.Messages = append(other.Messages, message(4), message(5), message(3), message(4)) // three, because secrets are alike
	if got := take(t, m, other); got != (policy.Taken{}) {
		t.Errorf("another endpoint: got %+v, want new", got)
	}
	full.Time = start.Add(time.Minute) // one has expired
	if got := take(t, m, full); got != (policy.Taken{}) {
		t.Errorf("after one has expired: got %+v, want new", got)
	}
	if diff := cmp.Diff(map[string]store.Stats{
		"rate": {Kind: "rate", Keys: 1}, "replay": {Kind: "replay", Keys: 6}, "stream": {Kind: "stream", Keys: 1}, "reservation": {Kind: "reservation"},
	}, stats(m)); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

// A delivery that may come again has its place already.
func TestReleasedDeliveryFitsAgainAtTheCap(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{MaxDeliveries: 2})
	again := delivery(0)
	again.Messages, again.Reservation = append(again.Messages, message(1)), time.Minute
	for range policy.MaxReleases {
		got := take(t, m, again)
		if ok, err := m.Settle(t.Context(), start, "e", got.Token, false); !ok || err != nil {
			t.Fatalf("settle: got %v, %v", ok, err)
		}
	}
	alike := delivery(0)
	alike.Messages = append(alike.Messages, message(1), message(1))
	if got := take(t, m, alike); got != (policy.Taken{}) {
		t.Errorf("got %+v, want new", got)
	}
	if got := stats(m)["replay"].Keys; got != 2 {
		t.Errorf("%d messages are remembered, want 2", got)
	}
}

// One that is taken and released over and over leaves nothing behind.
func TestReleaseLeavesNothing(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{MaxDeliveries: 1, MaxStreams: 4})
	const rounds = 100_000
	before := heap()
	for i := range rounds {
		d := delivery(i)
		d.Stream, d.Reservation = fmt.Sprint(i), time.Minute
		take(t, m, d)
		if err := m.Release(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range m.Stats() {
		if s.Keys != 0 || s.Evictions != 0 {
			t.Errorf("%s: %d keys, %d evictions, want none", s.Kind, s.Keys, s.Evictions)
		}
	}
	if after := heap(); !raceDetector && after > before+rounds {
		t.Errorf("the heap has grown by %d bytes in %d rounds", after-before, rounds)
	}
	runtime.KeepAlive(m)
}

func TestExpiredIsForgottenAsDeliveriesCome(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{})
	const n = 1000
	for i := range n {
		d := delivery(i)
		d.Window, d.Reservation = time.Minute+time.Duration(i*7919%n)*time.Millisecond, time.Second
		d.Stream, d.Buckets = fmt.Sprint(i), []policy.Bucket{{Key: key(i), Limit: rate.Limit{Count: 1, Period: time.Minute, Burst: 1}}}
		take(t, m, d)
	}
	for kind, s := range stats(m) {
		if s.Keys != n {
			t.Errorf("%s: %d keys, want %d", kind, s.Keys, n)
		}
	}
	for i := range n { // as many deliveries as there were are more than enough
		d := delivery(n + i)
		d.Time, d.Window = start.Add(time.Hour), time.Minute
		d.Buckets = []policy.Bucket{{Key: key(n + i), Limit: rate.Limit{Count: 1, Period: time.Minute, Burst: 1}}}
		take(t, m, d)
	}
	for kind, want := range map[string]int{"rate": n, "replay": n, "stream": 0, "reservation": 0} {
		if got := stats(m)[kind]; got.Keys != want || got.Evictions != 0 {
			t.Errorf("%s: %d keys, %d evictions, want %d and none", kind, got.Keys, got.Evictions, want)
		}
	}
}

// What has expired counts for nothing, even while most of it has not been forgotten yet.
func TestExpiredCountsForNothingUncollected(t *testing.T) {
	const n = 100
	release := func(t *testing.T, m *store.Memory, d *policy.Take) {
		t.Helper()
		got := take(t, m, d)
		if ok, err := m.Settle(t.Context(), d.Time, "e", got.Token, false); !ok || err != nil {
			t.Fatalf("settle of %+v: got %v, %v", got, ok, err)
		}
	}
	reserved := func(i int) *policy.Take {
		d := delivery(i)
		d.Reservation = time.Minute
		return d
	}
	stream := func(t *testing.T, m *store.Memory, i int, at time.Duration) {
		t.Helper()
		if got := take(t, m, &policy.Take{Time: start.Add(at), Endpoint: "e", Stream: fmt.Sprint(i)}); got != (policy.Taken{}) {
			t.Errorf("stream %d: got %+v, want no retry", i, got)
		}
	}
	tests := []struct {
		name   string
		before func(t *testing.T, m *store.Memory, i int)
		after  func(t *testing.T, m *store.Memory, i int)
	}{
		{"a record", func(t *testing.T, m *store.Memory, i int) { take(t, m, delivery(i)) },
			func(t *testing.T, m *store.Memory, i int) {
				d := delivery(i)
				d.Time = start.Add(time.Hour)
				if got := take(t, m, d); got != (policy.Taken{}) {
					t.Errorf("message %d: got %+v, want new", i, got)
				}
			}},
		{"a stream", func(t *testing.T, m *store.Memory, i int) { stream(t, m, i, 0) },
			func(t *testing.T, m *store.Memory, i int) { stream(t, m, n-1-i, policy.StreamWindow) }},
		{"a reservation", func(t *testing.T, m *store.Memory, i int) { take(t, m, reserved(i)) },
			func(t *testing.T, m *store.Memory, i int) {
				d := delivery(i)
				d.Time = start.Add(time.Minute)
				if got := take(t, m, d); got != (policy.Taken{}) {
					t.Errorf("message %d: got %+v, want new", i, got)
				}
			}},
		{"releases", func(t *testing.T, m *store.Memory, i int) {
			for range policy.MaxReleases {
				release(t, m, reserved(i))
			}
		}, func(t *testing.T, m *store.Memory, i int) {
			d := reserved(i)
			d.Time = start.Add(time.Hour)
			for range policy.MaxReleases {
				release(t, m, d)
			}
			if got := take(t, m, d); got.Duplicate {
				t.Errorf("message %d: got %+v, want new", i, got)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := store.NewMemory(store.MemoryConfig{})
			for i := range n {
				tt.before(t, m, i)
			}
			for i := range n {
				tt.after(t, m, i)
			}
		})
	}
}

func TestBucketsAreCapped(t *testing.T) {
	const most = 8 // as many as are compared, so that the order is exact
	m := store.NewMemory(store.MemoryConfig{MaxBuckets: most})
	slow := func(hours int) rate.Limit {
		return rate.Limit{Count: 1, Period: time.Duration(hours) * time.Hour, Burst: 1}
	}
	order := []int{5, 3, 8, 1, 7, 2, 6, 4} // hours until each is idle
	for _, hours := range order {
		take(t, m, spend(hours, slow(hours)))
	}
	evicted := func() (gone []int) {
		for hours := 1; hours <= most; hours++ {
			peek := spend(hours, slow(hours))
			peek.Peek = true
			if take(t, m, peek).Limited == 0 {
				gone = append(gone, hours)
			}
		}
		return gone
	}
	if gone := evicted(); gone != nil {
		t.Fatalf("gone before there is need: %v", gone)
	}
	for n := 1; n <= 3; n++ {
		take(t, m, spend(100+n, slow(100)))
		var want []int
		for hours := 1; hours <= n; hours++ {
			want = append(want, hours)
		}
		if diff := cmp.Diff(want, evicted()); diff != "" {
			t.Errorf("evicted for the new one (-want +got):\n%s", diff)
		}
		if got, want := stats(m)["rate"], (store.Stats{Kind: "rate", Keys: most, Evictions: uint64(n)}); got != want {
			t.Errorf("stats: got %+v, want %+v", got, want)
		}
	}
	other := spend(1, slow(1))
	other.Endpoint = "other"
	take(t, m, other)
	if got := stats(m)["rate"].Evictions; got != 3 {
		t.Errorf("another endpoint evicts: %d evictions, want 3", got)
	}
	late := spend(200, slow(1))
	late.Time = start.Add(5 * time.Hour) // those of 4 and 5 hours are idle
	take(t, m, late)
	if got := stats(m)["rate"].Evictions; got != 3 {
		t.Errorf("%d evictions, want 3: an idle one is forgotten and no other", got)
	}
}

// While nothing is evicted each bucket is as exact as one alone; an eviction makes none stricter; and there is never one too many.
func TestBucketsLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 40).Draw(t, "most")
		m := store.NewMemory(store.MemoryConfig{MaxBuckets: most})
		const interval = time.Minute
		l := rate.Limit{Count: 1, Period: interval, Burst: 5}
		alone, now := map[int]int64{}, start
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
			n := rapid.IntRange(0, 60).Draw(t, "key")
			s := spend(n, l)
			s.Time = now
			got, err := m.Take(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			next, ok, after := l.Take(alone[n], now.UnixNano())
			evicted := stats(m)["rate"].Evictions > 0
			switch {
			case evicted && !ok && got.Limited == 0:
				next = max(next, now.Add(time.Duration(l.Burst)*interval).UnixNano()) // as spent as it can be by now
			case ok != (got.Limited == 0), !evicted && after != got.RetryAfter:
				t.Fatalf("key %d: got %+v, want %v, retry after %s", n, got, ok, after)
			}
			if alone[n] = next; stats(m)["rate"].Keys > most {
				t.Fatalf("%d keys, more than %d", stats(m)["rate"].Keys, most)
			}
		}
	})
}

func TestBucketsBeyondTheCapLimitStill(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{MaxBuckets: 1})
	both := spend(0, rate.Limit{Count: 1, Period: time.Hour, Burst: 1})
	both.Buckets = append(both.Buckets, policy.Bucket{Key: key(1), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 1}})
	if got := take(t, m, both); got != (policy.Taken{}) {
		t.Errorf("got %+v, want taken", got)
	}
	if got := take(t, m, both); got.Limited != 2 {
		t.Errorf("got %+v, want limited by bucket 2, the one that is remembered", got)
	}
}

func TestStreamsAreCapped(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{MaxStreams: 3})
	stream := func(n int, at time.Duration) *policy.Take {
		return &policy.Take{Time: start.Add(at), Endpoint: "e", Stream: fmt.Sprint(n)}
	}
	for n := range 5 {
		take(t, m, stream(n, time.Duration(n)))
	}
	for n := range 5 {
		peek := stream(n, 5)
		peek.Peek = true
		if got, want := take(t, m, peek).Retry, n >= 2; got != want {
			t.Errorf("stream %d: retry %v, want %v: the oldest are forgotten", n, got, want)
		}
	}
	if got, want := stats(m)["stream"], (store.Stats{Kind: "stream", Keys: 3, Evictions: 2}); got != want {
		t.Errorf("stats: got %+v, want %+v", got, want)
	}
	// Those from before the clock was set back are still the oldest.
	for n := range 5 {
		take(t, m, stream(10+n, -time.Hour+time.Duration(n)))
	}
	for n := range 5 {
		peek := stream(10+n, -time.Hour+5)
		peek.Peek = true
		if got, want := take(t, m, peek).Retry, n >= 2; got != want {
			t.Errorf("stream %d after the clock was set back: retry %v, want %v", 10+n, got, want)
		}
	}
}

// A clock that jumps makes nothing be forgotten early but what its new time says has expired, and nothing fails.
func TestClockJumps(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{})
	at := func(n int, jump time.Duration) *policy.Take {
		d := delivery(n)
		d.Time = start.Add(jump)
		return d
	}
	take(t, m, at(0, 0))
	for _, jump := range []time.Duration{-time.Minute, -24 * time.Hour, -50 * 365 * 24 * time.Hour, time.Hour - 1} {
		if got := take(t, m, at(0, jump)); !got.Duplicate {
			t.Errorf("clock at %s: got %+v, want a duplicate", jump, got)
		}
	}
	take(t, m, at(1, -time.Hour))
	if got := take(t, m, at(1, -1)); !got.Duplicate {
		t.Errorf("got %+v, want a duplicate", got)
	}
	if got := take(t, m, at(1, 0)); got.Duplicate {
		t.Errorf("got %+v, want new: its window has ended", got)
	}
	if got := take(t, m, at(0, time.Minute)); !got.Duplicate {
		t.Errorf("got %+v, want a duplicate", got)
	}
}

// Many endpoints at once, everything that can be called. The race detector is the judge, and the count of what passed.
func TestConcurrentEndpoints(t *testing.T) {
	m := store.NewMemory(store.MemoryConfig{MaxDeliveries: 64, MaxBuckets: 16, MaxStreams: 16})
	const callers, endpoints, rounds = 16, 4, 200
	var mu sync.Mutex
	passed := map[string]int{}
	var wait sync.WaitGroup
	for c := range callers {
		wait.Go(func() {
			for i := range rounds {
				endpoint := fmt.Sprint(i % endpoints)
				d := delivery(i / endpoints)
				d.Endpoint, d.Stream, d.Reservation = endpoint, fmt.Sprint(c, i), time.Minute
				d.Buckets = []policy.Bucket{{Key: key(0), Limit: rate.Limit{Count: 1, Period: time.Hour, Burst: 30}}}
				got, err := m.Take(t.Context(), d)
				if err != nil {
					t.Errorf("take: %v", err)
				}
				if got.Limited == 0 && !got.Duplicate {
					mu.Lock()
					passed[endpoint]++
					mu.Unlock()
					switch i % 3 {
					case 0:
						_, err = m.Settle(t.Context(), start, endpoint, got.Token, i%2 == 0)
					case 1:
						err = m.Release(t.Context(), d)
					}
					if err != nil {
						t.Errorf("settle or release: %v", err)
					}
				}
				m.Stats()
			}
		})
	}
	wait.Wait()
	for endpoint, n := range passed {
		if n != 30 {
			t.Errorf("endpoint %s: %d passed, want the burst of 30", endpoint, n)
		}
	}
	if len(passed) != endpoints {
		t.Errorf("deliveries passed at %d endpoints, want %d", len(passed), endpoints)
	}
}

// heap is the live heap in bytes.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

const million = 1_000_000

// fills says how a million keys come to be, and how many bytes each may take.
var fills = []struct {
	name  string
	takes int
	take  func(i int) *policy.Take
	most  float64
}{
	{"replay", million, delivery, 16 + 100}, // 16 for the hash itself
	{"replay while a secret is rotated", million / 2, func(i int) *policy.Take {
		d := delivery(2 * i)
		d.Messages = append(d.Messages, message(2*i+1))
		return d
	}, 16 + 100},
	{"replay while every delivery is in flight", million, func(i int) *policy.Take {
		d := delivery(i)
		d.Reservation = time.Minute
		return d
	}, 16 + 200},
	{"rate", million, func(i int) *policy.Take { return spend(i, rate.Limit{Count: 1, Period: time.Hour, Burst: 1}) }, 100},
	{"stream", million, func(i int) *policy.Take {
		return &policy.Take{Time: start, Endpoint: "e", Stream: strconv.Itoa(i)}
	}, 150},
}

func roomy() *store.Memory {
	return store.NewMemory(store.MemoryConfig{MaxDeliveries: million, MaxBuckets: million, MaxStreams: million})
}

func TestBytesPerKey(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("fills a store with a million keys and measures the heap")
	}
	for _, fill := range fills {
		t.Run(fill.name, func(t *testing.T) {
			before, m := heap(), roomy()
			for i := range fill.takes {
				take(t, m, fill.take(i))
			}
			each := float64(heap()-before) / million
			t.Logf("%.1f bytes a key", each)
			if each > fill.most {
				t.Errorf("%.1f bytes a key, want at most %.0f", each, fill.most)
			}
			runtime.KeepAlive(m)
		})
	}
}

// BenchmarkMillionKeys measures what a key takes in a store of a million, and the mean time of the takes that fill it.
func BenchmarkMillionKeys(b *testing.B) {
	for _, fill := range fills {
		b.Run(fill.name, func(b *testing.B) {
			takes := make([]*policy.Take, fill.takes)
			for i := range takes {
				takes[i] = fill.take(i)
			}
			var bytes uint64
			for b.Loop() {
				before, m := heap(), roomy()
				for _, t := range takes {
					take(b, m, t)
				}
				bytes = heap() - before
				runtime.KeepAlive(m)
			}
			b.ReportMetric(float64(bytes)/million, "bytes/key")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(takes)), "ns/take")
		})
	}
}

// BenchmarkTake is one take of a store that holds a million deliveries, of which one expires for each that comes.
func BenchmarkTake(b *testing.B) {
	m := roomy()
	at := func(i int) *policy.Take {
		d := delivery(i)
		d.Time, d.Stream = start.Add(time.Duration(i)*time.Second), "s"
		d.Window, d.Buckets = (million-1)*time.Second, spend(0, rate.Limit{Count: 1, Period: time.Second, Burst: 1}).Buckets
		return d
	}
	i := 0
	for ; i < million; i++ {
		take(b, m, at(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		if got := take(b, m, at(i)); got != (policy.Taken{}) {
			b.Fatalf("got %+v, want new", got)
		}
		i++
	}
}
