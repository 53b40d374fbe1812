package main

import (
	"math"
	"slices"
	"time"
)

// estimate is a median over rounds and an interval in which the true one lies.
type estimate struct {
	median, low, high float64
	// coverage is the probability of that: at least 0.95 from six rounds on. With fewer it is what all of the range gives.
	coverage float64
}

// estimated takes the interval from the order of the values, which asks nothing of how they are distributed: each lies below the true median
// with probability 1/2, so that the number of those below it is binomial. From the k-th smallest to the k-th largest value it covers
// 1 - 2·P(fewer than k below); k is the largest with which that is 95 %.
func estimated(values []float64) estimate {
	n := len(values)
	if n == 0 {
		return estimate{median: math.NaN(), low: math.NaN(), high: math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	k := 1
	for k < (n+1)/2 && 1-2*below(n, k+1) >= 0.95 {
		k++
	}
	return estimate{median: middle(sorted), low: sorted[k-1], high: sorted[n-k], coverage: 1 - 2*below(n, k)}
}

// below is the probability that fewer than k of n values lie below their true median.
func below(n, k int) float64 {
	sum, choose := 0.0, 1.0
	for i := range k {
		sum += choose
		choose = choose * float64(n-i) / float64(i+1)
	}
	return sum / math.Pow(2, float64(n))
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// quantile is the smallest of the sorted values that at least this share of them does not exceed.
func quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(share*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
