package main

import (
	"math"
	"testing"
	"time"
)

// A bar holds by its median, or if its interval reaches it; never without values.
func TestVerdict(t *testing.T) {
	nine := []float64{0.60, 0.61, 0.62, 0.63, 0.64, 0.65, 0.66, 0.67, 0.68} // 0.64, from 0.61 to 0.67
	for _, c := range []struct {
		limit  float64
		atMost bool
		values []float64
		want   string
	}{
		{0.70, true, nine, "holds"},
		{0.64, true, nine, "holds"},
		{0.62, true, nine, "holds, by its interval"},
		{0.605, true, nine, "MISSED"},
		{0.60, false, nine, "holds"},
		{0.66, false, nine, "holds, by its interval"},
		{0.675, false, nine, "MISSED"},
		{0.70, true, nil, "not measured"},
		{0.70, true, []float64{math.NaN()}, "MISSED"},
		{0.70, false, []float64{math.NaN()}, "MISSED"},
	} {
		b := bar{limit: c.limit, atMost: c.atMost, values: c.values}
		if got := b.verdict(); got != c.want {
			t.Errorf("limit %v, at most %v, %v: got %q, want %q", c.limit, c.atMost, c.values, got, c.want)
		}
	}
}

// Rows are compared round by round: where both become slower together, their ratio stays.
func TestRatios(t *testing.T) {
	var a, b row
	for round := range 9 {
		drift := time.Duration(1 + round)
		a.samples = append(a.samples, sample{cpu: 30 * drift})
		b.samples = append(b.samples, sample{cpu: 60 * drift})
	}
	if got := estimated(ratios(&a, &b, cpuOf)); got.low != 0.5 || got.high != 0.5 {
		t.Errorf("got %+v", got)
	}
	if got := ratios(&a, nil, cpuOf); got != nil {
		t.Errorf("got %v of a row that is not there", got)
	}
}

func TestBusy(t *testing.T) {
	// 1,000 allows and 1,000 denials within 0.1 s, at 40 µs each, take 80 ms: 0.8 CPUs.
	s := sample{cpu: 40 * time.Microsecond, rate: 10_000, calls: [outcomes]int64{asWanted: 1000, stopped: 1000}}
	if got := busyOf(&s); math.Abs(got-0.8) > 1e-9 {
		t.Errorf("got %v CPUs, want 0.8", got)
	}
}
