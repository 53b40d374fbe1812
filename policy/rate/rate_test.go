package rate_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy/rate"
)

func TestParse(t *testing.T) {
	tests := []struct {
		text   string
		want   rate.Limit
		prints string
	}{
		{"1/second", rate.Limit{Count: 1, Period: time.Second, Burst: 1}, "1/second"},
		{"100/minute", rate.Limit{Count: 100, Period: time.Minute, Burst: 100}, "100/minute"},
		{"5000/hour", rate.Limit{Count: 5000, Period: time.Hour, Burst: 5000}, "5000/hour"},
		{"3/day", rate.Limit{Count: 3, Period: 24 * time.Hour, Burst: 3}, "3/day"},
		{"10/90s", rate.Limit{Count: 10, Period: 90 * time.Second, Burst: 10}, "10/1m30s"},
		{"10/1m30s", rate.Limit{Count: 10, Period: 90 * time.Second, Burst: 10}, "10/1m30s"},
		{"10/7d", rate.Limit{Count: 10, Period: 7 * 24 * time.Hour, Burst: 10}, "10/7d"},
		{"10/366d", rate.Limit{Count: 10, Period: 366 * 24 * time.Hour, Burst: 10}, "10/366d"},
		{"10/2h", rate.Limit{Count: 10, Period: 2 * time.Hour, Burst: 10}, "10/2h"},
		{"10/20m", rate.Limit{Count: 10, Period: 20 * time.Minute, Burst: 10}, "10/20m"},
		{"10/1h20m", rate.Limit{Count: 10, Period: 80 * time.Minute, Burst: 10}, "10/1h20m"},
		{"10/250ms", rate.Limit{Count: 10, Period: 250 * time.Millisecond, Burst: 10}, "10/250ms"},
		{"10/1s", rate.Limit{Count: 10, Period: time.Second, Burst: 10}, "10/second"},
		{"1000000/second", rate.Limit{Count: 1_000_000, Period: time.Second, Burst: 1_000_000}, "1000000/second"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := rate.Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.String() != tt.prints {
				t.Errorf("prints %q, want %q", got, tt.prints)
			}
		})
	}
}

func TestParseFaults(t *testing.T) {
	const form = " is not a limit such as 100/minute or 10/90s"
	tests := []struct{ text, want string }{
		{"", `""` + form},
		{"100", `"100"` + form},
		{"100/", `"100/"` + form},
		{"/minute", `"/minute"` + form},
		{"100/fortnight", `"100/fortnight"` + form},
		{"100/minutes", `"100/minutes"` + form},
		{"100/Minute", `"100/Minute"` + form},
		{"100 / minute", `"100 / minute"` + form},
		{" 100/minute", `" 100/minute"` + form},
		{"100/minute\n", `"100/minute\n"` + form},
		{"100/90", `"100/90"` + form},
		{"1.5/second", `"1.5/second"` + form},
		{"-1/second", `"-1/second"` + form},
		{"+1/second", `"+1/second"` + form},
		{"1/-1s", `"1/-1s"` + form},
		{"0/minute", `"0/minute"` + form + ": it lets nothing through"},
		{"99999999999/day", `"99999999999/day"` + form},
		{"1000001/second", `"1000001/second"` + form + ": it is more than 1000000 a second"},
		{"1/0s", `"1/0s"` + form + ": it is more than 1000000 a second"},
		{"1/0d", `"1/0d"` + form + ": it is more than 1000000 a second"},
		{"1/367d", `"1/367d"` + form + ": its period is longer than 366 days"},
		{"1/99999d", `"1/99999d"` + form},
		{"1/9999999999999h", `"1/9999999999999h"` + form},
		{strings.Repeat("9", 1000), `"` + strings.Repeat("9", 64) + `..."` + form},
	}
	for _, tt := range tests {
		got, err := rate.Parse(tt.text)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%.80q: got %v, want %s", tt.text, err, tt.want)
		}
		if got != (rate.Limit{}) {
			t.Errorf("%.80q: got the limit %v with the error", tt.text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"100/minute", "10/90s", "1/366d", "7/1h20m3.5s", "0/day", "1/µs"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := rate.Parse(s)
		if err != nil {
			return
		}
		if l.Count < 1 || l.Period <= 0 || l.Burst != l.Count {
			t.Fatalf("%q gives %#v", s, l)
		}
		again, err := rate.Parse(l.String())
		if err != nil || again != l {
			t.Fatalf("%q prints as %q, which gives %#v, %v, not %#v", s, l, again, err, l)
		}
	})
}

// start is some moment of our age.
var start = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC).UnixNano()

func TestTake(t *testing.T) {
	type step struct {
		at      time.Duration // since start
		allowed bool
		after   time.Duration // retryAfter
	}
	tests := []struct {
		name  string
		limit rate.Limit
		steps []step
	}{
		{"one at a time", rate.Limit{Count: 1, Period: time.Second, Burst: 1}, []step{
			{0, true, 0}, {0, false, time.Second}, {time.Second - 1, false, 1}, {time.Second, true, 0}, {time.Second, false, time.Second},
		}},
		{"a burst, then the rate", rate.Limit{Count: 60, Period: time.Minute, Burst: 3}, []step{
			{0, true, 0}, {0, true, 0}, {0, true, 0}, {0, false, time.Second},
			{1500 * time.Millisecond, true, 0}, {1500 * time.Millisecond, false, 500 * time.Millisecond},
			{2 * time.Second, true, 0}, {2 * time.Second, false, time.Second},
		}},
		{"an idle key has its whole burst and no more", rate.Limit{Count: 60, Period: time.Minute, Burst: 2}, []step{
			{0, true, 0}, {time.Hour, true, 0}, {time.Hour, true, 0}, {time.Hour, false, time.Second},
		}},
		{"a refusal costs nothing", rate.Limit{Count: 1, Period: time.Second, Burst: 1}, []step{
			{0, true, 0}, {time.Second / 2, false, time.Second / 2}, {time.Second / 2, false, time.Second / 2}, {time.Second, true, 0},
		}},
		{"an interval that is no whole number is rounded up", rate.Limit{Count: 3, Period: time.Second, Burst: 1}, []step{
			{0, true, 0}, {333333333, false, 1}, {333333334, true, 0},
		}},
		{"a clock that steps back a little lets nothing more through", rate.Limit{Count: 1, Period: time.Second, Burst: 2}, []step{
			{0, true, 0}, {0, true, 0}, {-30 * time.Second, false, 31 * time.Second}, {0, false, time.Second}, {time.Second, true, 0},
		}},
		{"a clock that steps back a lot blocks for one interval", rate.Limit{Count: 1, Period: time.Second, Burst: 2}, []step{
			{0, true, 0}, {0, true, 0}, {-time.Hour, false, time.Second}, {time.Second - 1 - time.Hour, false, 1},
			{time.Second - time.Hour, true, 0}, {time.Second - time.Hour, false, time.Second},
		}},
		{"nothing is allowed by the zero limit", rate.Limit{}, []step{{0, false, math.MaxInt64}}},
		{"nor without a burst", rate.Limit{Count: 1, Period: time.Second}, []step{{0, false, math.MaxInt64}}},
		{"nor without a period", rate.Limit{Count: 1, Burst: 1}, []step{{0, false, math.MaxInt64}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stored := int64(0)
			for i, s := range tt.steps {
				next, ok, after := tt.limit.Take(stored, start+int64(s.at))
				if ok != s.allowed || after != s.after {
					t.Errorf("step %d at %s: got %v, retry after %s, want %v, %s", i+1, s.at, ok, after, s.allowed, s.after)
				}
				stored = next
			}
		})
	}
}

// A limit that was lowered holds nobody to a debt under the old one.
func TestTakeAfterLimitIsLowered(t *testing.T) {
	big := rate.Limit{Count: 1, Period: time.Second, Burst: 100_000}
	small := rate.Limit{Count: 1, Period: time.Second, Burst: 1}
	stored := int64(0)
	for range big.Burst {
		stored, _, _ = big.Take(stored, start)
	}
	stored, ok, after := small.Take(stored, start)
	if ok || after != time.Second {
		t.Fatalf("got %v, retry after %s, want false, 1s", ok, after)
	}
	if _, ok, _ = small.Take(stored, start+int64(time.Second)); !ok {
		t.Error("still refused after the time it gave")
	}
}

func limits() *rapid.Generator[rate.Limit] {
	return rapid.Custom(func(t *rapid.T) rate.Limit {
		return rate.Limit{
			Count:  rapid.IntRange(1, 1000).Draw(t, "count"),
			Period: time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Hour)).Draw(t, "period")),
			Burst:  rapid.IntRange(1, 50).Draw(t, "burst"),
		}
	})
}

// In any window no more passes than the burst and what the rate adds in it, even where clocks differ by a little; and retryAfter is exact.
func TestTakeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits().Draw(t, "limit")
		interval := int64(l.Period) / int64(l.Count)
		stored, now, latest := int64(0), start, start
		var passed []int64
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0: // at once
			case 1: // an interval or so later
				now += rapid.Int64Range(0, 2*interval+2).Draw(t, "ahead")
			case 2: // much later
				now += rapid.Int64Range(0, int64(l.Period)).Draw(t, "far ahead")
			case 3: // a clock that is behind
				now = max(now-rapid.Int64Range(0, 2*interval+2).Draw(t, "back"), latest-int64(time.Minute))
			}
			latest = max(latest, now)
			next, ok, after := l.Take(stored, now)
			if !ok {
				if next != stored {
					t.Fatalf("a refusal moved the stored moment by %d", next-stored)
				}
				if _, early, _ := l.Take(stored, now+int64(after)-1); early {
					t.Fatalf("passes 1 ns before the %s it gave", after)
				}
				if _, late, _ := l.Take(stored, now+int64(after)); !late {
					t.Fatalf("does not pass after the %s it gave", after)
				}
				continue
			}
			if after != 0 {
				t.Fatalf("passes with retry after %s", after)
			}
			stored = next
			passed = append(passed, now)
		}
		for i := range passed {
			low, high := passed[i], passed[i]
			for j := i; j < len(passed); j++ {
				low, high = min(low, passed[j]), max(high, passed[j])
				if most := int64(l.Burst) + (high-low)*int64(l.Count)/int64(l.Period); int64(j-i+1) > most {
					t.Fatalf("%d passed within %s, more than %d", j-i+1, time.Duration(high-low), most)
				}
			}
		}
	})
}

// Whoever asks for no more than the rate is never refused.
func TestTakeOnSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits().Draw(t, "limit")
		stored, now := int64(0), start
		for i := range 100 {
			next, ok, _ := l.Take(stored, now)
			if !ok {
				t.Fatalf("event %d on schedule is refused", i+1)
			}
			stored = next
			now += int64(l.Period)/int64(l.Count) + 1
		}
	})
}

// However wrong the stored moment is, a key is blocked for no longer than its debt can be, an interval, and the minute clocks may differ by.
func TestTakeNeverBlocksForLong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits().Draw(t, "limit")
		stored := rapid.Int64().Draw(t, "stored")
		next, ok, after := l.Take(stored, start)
		if most := l.Period/time.Duration(l.Count) + 1 + time.Minute; after > most {
			t.Fatalf("blocked for %s, longer than %s", after, most)
		}
		if _, later, _ := l.Take(next, start+int64(after)); !ok && !later {
			t.Fatal("blocked after the time it gave")
		}
	})
}

func TestTakeAtTheBounds(t *testing.T) {
	for _, l := range []rate.Limit{
		{Count: 1, Period: 366 * 24 * time.Hour, Burst: math.MaxInt},
		{Count: math.MaxInt, Period: math.MaxInt64, Burst: math.MaxInt},
		{Count: 1, Period: math.MaxInt64, Burst: 1},
		{Count: math.MaxInt, Period: 1, Burst: 1},
	} {
		for _, stored := range []int64{math.MinInt64, 0, start, math.MaxInt64} {
			next, ok, after := l.Take(stored, start)
			if after < 0 || ok && next <= start {
				t.Errorf("%#v, stored %d: got %d, %v, %s", l, stored, next, ok, after)
			}
		}
	}
}

func TestDivide(t *testing.T) {
	tests := []struct {
		name  string
		limit rate.Limit
		n     int
		want  rate.Limit
	}{
		{"one server", rate.Limit{Count: 100, Period: time.Minute, Burst: 20}, 1, rate.Limit{Count: 100, Period: time.Minute, Burst: 20}},
		{"no number", rate.Limit{Count: 100, Period: time.Minute, Burst: 20}, 0, rate.Limit{Count: 100, Period: time.Minute, Burst: 20}},
		{"even", rate.Limit{Count: 100, Period: time.Minute, Burst: 20}, 4, rate.Limit{Count: 100, Period: 4 * time.Minute, Burst: 5}},
		{"uneven", rate.Limit{Count: 100, Period: time.Minute, Burst: 20}, 3, rate.Limit{Count: 100, Period: 3 * time.Minute, Burst: 6}},
		{"more servers than events", rate.Limit{Count: 1, Period: time.Hour, Burst: 1}, 5, rate.Limit{Count: 1, Period: 5 * time.Hour, Burst: 1}},
		{"nothing stays nothing", rate.Limit{Count: 1, Period: time.Hour}, 5, rate.Limit{Count: 1, Period: time.Hour}},
		{"the zero limit", rate.Limit{}, 5, rate.Limit{}},
		{"beyond the longest period", rate.Limit{Count: 1, Period: 366 * 24 * time.Hour, Burst: 1}, math.MaxInt, rate.Limit{Count: 1, Period: 1 << 60, Burst: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.limit.Divide(tt.n)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What all servers let through on their shares is no more than the rate, and the burst or one for each.
func TestDivideLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits().Draw(t, "limit")
		n := rapid.IntRange(1, 20).Draw(t, "servers")
		share := l.Divide(n)
		if share.Count < 1 || share.Burst < 1 || share.Burst > l.Burst {
			t.Fatalf("the share of 1/%d of %#v is %#v", n, l, share)
		}
		span := int64(n) * int64(l.Period)
		passed, stored := 0, int64(0)
		for now := start; now <= start+span; {
			next, ok, after := share.Take(stored, now)
			if !ok {
				now += int64(after)
				continue
			}
			stored = next
			passed++
		}
		// Over n periods, which is the share's own period, a share has Count events, and its burst.
		if most := l.Count + share.Burst; passed > most {
			t.Fatalf("a share let %d through in %s, more than %d", passed, time.Duration(span), most)
		}
		if passed < l.Count {
			t.Fatalf("a share let %d through in %s, fewer than %d", passed, time.Duration(span), l.Count)
		}
	})
}

func BenchmarkTake(b *testing.B) {
	l := rate.Limit{Count: 100, Period: time.Minute, Burst: 20}
	b.ReportAllocs()
	stored, now := int64(0), start
	for b.Loop() {
		stored, _, _ = l.Take(stored, now)
		now += int64(time.Second)
	}
}
