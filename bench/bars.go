package main

import "fmt"

// bar is what a figure must be.
type bar struct {
	what   string
	limit  float64
	atMost bool // the figure may not exceed the limit; else it must reach it
	format string
	values []float64 // the figure of each round
}

// verdict says whether a bar holds: its interval must reach the limit.
func (b *bar) verdict() string {
	e := estimated(b.values)
	median, bound := e.median, e.low
	if !b.atMost {
		median, bound = -e.median, -e.high
	}
	limit := b.limit
	if !b.atMost {
		limit = -limit
	}
	switch {
	case len(b.values) == 0:
		return "not measured"
	case median <= limit:
		return "holds"
	case bound <= limit:
		return "holds, by its interval"
	}
	return "MISSED"
}

func (b *bar) wanted() string {
	sign := "≥ "
	if b.atMost {
		sign = "≤ "
	}
	return sign + fmt.Sprintf(b.format, b.limit)
}

// ratios are those of two rows, round by round; nothing where one of them was not measured.
func ratios(a, b *row, of func(*sample) float64) []float64 {
	if a == nil || b == nil {
		return nil
	}
	var values []float64
	for i := range min(len(a.samples), len(b.samples)) {
		values = append(values, of(&a.samples[i])/of(&b.samples[i]))
	}
	return values
}

// values are those of one row, round by round.
func values(r *row, of func(*sample) float64) []float64 {
	if r == nil {
		return nil
	}
	var values []float64
	for i := range r.samples {
		values = append(values, of(&r.samples[i]))
	}
	return values
}

func cpuOf(s *sample) float64     { return float64(s.cpu) }
func microsOf(s *sample) float64  { return float64(s.cpu.Nanoseconds()) / 1e3 }
func secondsOf(s *sample) float64 { return s.cpu.Seconds() }
func rateOf(s *sample) float64    { return s.rate }
func perCPUOf(s *sample) float64  { return 1 / float64(s.cpu) }
func peakMiBOf(s *sample) float64 { return float64(s.peak) / (1 << 20) }
func allocsOf(s *sample) float64  { return s.allocations }

// busyOf is how many CPUs the process used.
func busyOf(s *sample) float64 {
	l := load{calls: s.calls}
	return s.cpu.Seconds() * float64(l.all()) / float64(s.calls[asWanted]) * s.rate
}

// bars are what the project holds itself to.
func bars(rows []*row) []*bar {
	tcp := func(name string, size int) *row { return find(rows, checksTable, name, size) }
	full := tcp(fullRow, small)
	list := []*bar{
		{"CPU of a check to the no-op's, full policy, every decision logged: 2 KiB", 0.60, true, "%.2f", ratios(full, tcp(noopRow, small), cpuOf)},
		{"the same at 64 KiB", 0.70, true, "%.2f", ratios(tcp(fullRow, medium), tcp(noopRow, medium), cpuOf)},
		{"the same at 1 MiB", 1.00, true, "%.2f", ratios(tcp(fullRow, large), tcp(noopRow, large), cpuOf)},
	}
	for _, size := range []int{small, medium, large} {
		list = append(list, &bar{"requests/s through Envoy to those through the no-op: " + sizeText(size), 1, false, "%.2f",
			ratios(find(rows, envoyTable, fullRow, size), find(rows, envoyTable, noopRow, size), rateOf)})
	}
	list = append(list, &bar{"CPU of a check with 10,000 policies to that with 1", 1.05, true, "%.2f", ratios(tcp(oneOfManyRow, small), full, cpuOf)},
		&bar{"reload of 10,000 policies, CPU seconds", 1, true, "%.2f", values(find(rows, reloadTable, reloadRow, 0), secondsOf)})
	for _, name := range []string{forgedRow, addressRow, nobodyRow} {
		list = append(list, &bar{"CPU of a check to that of an allow, " + name, 1, true, "%.2f", ratios(tcp(name, small), full, cpuOf)})
	}
	return append(list,
		&bar{"peak memory, 64 bodies of 1 MiB at once, MiB", 200, true, "%.0f", values(find(rows, memoryTable, bodiesRow, large), peakMiBOf)},
		&bar{"goodput at 10x overload to the peak", 0.9, false, "%.2f",
			ratios(find(rows, overloadTable, tenfoldRow, small), find(rows, overloadTable, peakRow, small), rateOf)},
		&bar{"checks per CPU second with the shared store to the embedded one: 2 KiB, 64 at once", 0.7, false, "%.2f",
			ratios(tcp(storeManyRow, small), tcp(fullManyRow, small), perCPUOf)},
		&bar{"the same at 16 at once", 0.7, false, "%.2f", ratios(tcp(storeRow, small), full, perCPUOf)},
	)
}
