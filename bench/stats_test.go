package main

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestEstimated(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		want   estimate
	}{
		{"one", []float64{3}, estimate{3, 3, 3, 0}},
		{"two", []float64{3, 1}, estimate{2, 1, 3, 0.5}},
		{"five: too few for 95 %", []float64{5, 3, 1, 2, 4}, estimate{3, 1, 5, 0.9375}},
		{"six: all of the range", []float64{6, 5, 4, 3, 2, 1}, estimate{3.5, 1, 6, 0.96875}},
		{"nine: second to eighth", []float64{9, 1, 8, 2, 7, 3, 6, 4, 5}, estimate{5, 2, 8, 0.9609375}},
		{"eleven: the third to the ninth would cover 93.5 %", []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, estimate{6, 2, 10, 0.98828125}},
		// From tables of the sign test: n = 15 gives the 4th to the 12th with 96.5 %.
		{"fifteen", []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, estimate{8, 4, 12, 0.96484375}},
	} {
		got := estimated(c.values)
		if math.Abs(got.coverage-c.want.coverage) > 1e-12 {
			t.Errorf("%s: coverage %v, want %v", c.name, got.coverage, c.want.coverage)
		}
		if got.coverage = c.want.coverage; got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := estimated(nil); !math.IsNaN(got.median) {
		t.Errorf("of nothing: %+v", got)
	}
}

// The interval covers the median as often as it says, of a distribution that is far from normal.
func TestEstimatedCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const trials = 20_000
	covered, want := 0, 0.0
	for range trials {
		values := make([]float64, 9)
		for i := range values {
			values[i] = random.ExpFloat64() // its median is ln 2
		}
		e := estimated(values)
		if e.low <= math.Ln2 && math.Ln2 <= e.high {
			covered++
		}
		want = e.coverage
	}
	if got := float64(covered) / trials; math.Abs(got-want) > 0.01 {
		t.Errorf("covers the median in %.3f of the trials, says %.3f", got, want)
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 500, 0.99: 990, 0.999: 999, 0.9991: 1000, 1: 1000} {
		if got := quantile(sorted, share); got != want {
			t.Errorf("quantile %v: %d, want %d", share, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}
