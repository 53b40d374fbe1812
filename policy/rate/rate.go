// Package rate limits how often something may happen: "100/minute", with a burst.
//
// The algorithm is GCRA, the generic cell rate algorithm. Picture events that are due at even intervals: 100/minute is one
// each 600 ms. For each key one moment is stored, the theoretical arrival time: when the next event would be due if every
// event so far had come on schedule. An event that comes late moves it to one interval after now; one that comes early moves it one
// interval further into the future. An event may be early by as much as burst-1 intervals; one that is earlier is refused, changes
// nothing, and fits again at a moment that is known exactly.
package rate

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"
)

// Limit is a rate with a burst. The zero value allows nothing.
type Limit struct {
	Count  int           // events in each Period
	Period time.Duration // > 0
	Burst  int           // events that may happen at once; Count where the text names none
}

// Bounds of a limit. Within them all sums stay far from the end of an int64 of nanoseconds.
const (
	maxCount  = 1_000_000_000
	maxPeriod = 366 * 24 * time.Hour
)

// farthest bounds how far ahead a moment is stored: a burst of many years is as good as none at all.
const farthest = 1 << 61

var (
	form  = regexp.MustCompile(`^([0-9]{1,10})/([a-z0-9.µ]+)$`)
	days  = regexp.MustCompile(`^([0-9]{1,4})d$`)
	units = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
)

// Parse reads "100/minute": a count of at least 1 and second, minute, hour, day or a duration such as 90s or 7d. The burst is the count.
func Parse(s string) (Limit, error) {
	fail := func() (Limit, error) {
		if len(s) > 64 {
			s = s[:64] + "..."
		}
		return Limit{}, fmt.Errorf("%q is not a limit such as 100/minute or 10/90s", s)
	}
	m := form.FindStringSubmatch(s)
	if m == nil {
		return fail()
	}
	count, err := strconv.Atoi(m[1])
	if err != nil || count < 1 || count > maxCount {
		return fail()
	}
	period, ok := units[m[2]]
	if !ok {
		if d := days.FindStringSubmatch(m[2]); d != nil {
			n, _ := strconv.Atoi(d[1])
			period = time.Duration(n) * 24 * time.Hour
		} else if period, err = time.ParseDuration(m[2]); err != nil {
			return fail()
		}
	}
	if period < time.Millisecond || period > maxPeriod {
		return fail()
	}
	return Limit{Count: count, Period: period, Burst: count}, nil
}

// String is the rate as Parse takes it, without the burst.
func (l Limit) String() string {
	for _, unit := range []string{"second", "minute", "hour", "day"} {
		if units[unit] == l.Period {
			return fmt.Sprintf("%d/%s", l.Count, unit)
		}
	}
	return fmt.Sprintf("%d/%s", l.Count, l.Period)
}

// interval is the time between two events on schedule, rounded up: rounding never lets one more through.
func (l Limit) interval() int64 {
	return (int64(l.Period) + int64(l.Count) - 1) / int64(l.Count)
}

// Take is one step. The stored moment and now are in Unix nanoseconds; stored is 0 for a key that was never used, and so is any
// moment that has passed. An event that fits gives the moment to store; one that does not leaves it as it is and fits
// after the time retryAfter, exactly. A clock that jumped back by more than all of the budget counts as a budget that is spent.
func (l Limit) Take(stored, now int64) (next int64, ok bool, retryAfter time.Duration) {
	if l.Count <= 0 || l.Period <= 0 || l.Burst <= 0 {
		return stored, false, math.MaxInt64
	}
	interval := l.interval()
	early := int64(farthest)
	if most := int64(l.Burst - 1); most < early/interval {
		early = interval * most
	}
	// No event sequence stores a moment further ahead than this: a later one is from a clock that was ahead, or from a larger limit.
	arrival := min(max(stored, now), now+early+interval)
	if wait := arrival - early - now; wait > 0 {
		return arrival, false, time.Duration(wait)
	}
	return arrival + interval, true, 0
}

// Divide is the share of one of n servers: never more than l, and never nothing where l allows something.
func (l Limit) Divide(n int) Limit {
	if n <= 1 || l.Count <= 0 {
		return l
	}
	share := Limit{Count: l.Count / n, Period: l.Period, Burst: max(1, l.Burst/n)}
	if share.Count == 0 { // fewer events than servers: one, n/Count times as rarely
		share.Count, share.Period = 1, l.Period*time.Duration(n)/time.Duration(l.Count)
	}
	return share
}
