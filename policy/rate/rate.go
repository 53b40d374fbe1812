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
	"strings"
	"time"
)

// Limit is a rate with a burst. The zero value allows nothing.
type Limit struct {
	Count  int           // events in each Period
	Period time.Duration // > 0
	Burst  int           // events that may happen at once; Count where the text names none
}

// Bounds of what Parse takes.
const (
	maxPeriod = 366 * 24 * time.Hour
	// An interval is a whole number of nanoseconds: at a microsecond and more the rounding is below a thousandth.
	minInterval = time.Microsecond
)

const (
	// farthest bounds every span that is added to a moment, so that no sum leaves an int64: a burst of decades is as good as none at all.
	farthest = 1 << 60
	// maxSkew is how far the clocks of two callers, or one clock before and after it was set, may lie apart without anything being let through for it.
	maxSkew = int64(time.Minute)
)

var (
	form  = regexp.MustCompile(`^([0-9]{1,10})/([a-z0-9.µ]{1,32})$`)
	days  = regexp.MustCompile(`^([0-9]{1,4})d$`)
	units = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}
)

// Parse reads "100/minute": a count of at least 1, and second, minute, hour, day or a duration such as 90s or 7d. The burst is the count.
func Parse(s string) (Limit, error) {
	m := form.FindStringSubmatch(s)
	if m == nil {
		return fault(s, "")
	}
	count, err := strconv.Atoi(m[1])
	if err != nil || count < 1 {
		return fault(s, ": it lets nothing through")
	}
	period, err := parsePeriod(m[2])
	switch {
	case err != nil:
		return fault(s, "")
	case period > maxPeriod:
		return fault(s, ": its period is longer than 366 days")
	case period/time.Duration(count) < minInterval:
		return fault(s, ": it is more than 1000000 a second")
	}
	return Limit{Count: count, Period: period, Burst: count}, nil
}

func fault(s, why string) (Limit, error) {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return Limit{}, fmt.Errorf("%q is not a limit such as 100/minute or 10/90s%s", s, why)
}

func parsePeriod(s string) (time.Duration, error) {
	if period, ok := units[s]; ok {
		return period, nil
	}
	if d := days.FindStringSubmatch(s); d != nil {
		n, err := strconv.Atoi(d[1])
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// String is the rate as Parse takes it, without the burst.
func (l Limit) String() string {
	for _, unit := range []string{"second", "minute", "hour", "day"} {
		if units[unit] == l.Period {
			return fmt.Sprintf("%d/%s", l.Count, unit)
		}
	}
	if day := units["day"]; l.Period > 0 && l.Period%day == 0 {
		return fmt.Sprintf("%d/%dd", l.Count, l.Period/day)
	}
	period := l.Period.String()
	if strings.HasSuffix(period, "m0s") {
		period = strings.TrimSuffix(period, "0s")
	}
	if strings.HasSuffix(period, "h0m") {
		period = strings.TrimSuffix(period, "0m")
	}
	return fmt.Sprintf("%d/%s", l.Count, period)
}

// interval is the time between two events on schedule, rounded up: rounding never lets one more through.
func (l Limit) interval() int64 {
	// The parts are divided one by one, because Period + Count - 1 may not fit.
	interval := int64(l.Period) / int64(l.Count)
	if int64(l.Period)%int64(l.Count) != 0 {
		interval++
	}
	return min(interval, farthest)
}

// Schedule is what a step goes by, in nanoseconds: the interval between two events on schedule, and by how much one may be early. Both are 0
// for a limit that allows nothing, and at most 2^60. It is for engines that take the step elsewhere, as Take has it.
func (l Limit) Schedule() (interval, early int64) {
	if l.Count <= 0 || l.Period <= 0 || l.Burst <= 0 {
		return 0, 0
	}
	interval, early = l.interval(), farthest
	if most := int64(l.Burst - 1); most < early/interval {
		early = interval * most
	}
	return interval, early
}

// Take is one step. The stored moment and now are in Unix nanoseconds; stored is 0 for a key that was never used, and a moment that
// has passed is as good as 0. An event that fits gives the next moment to store. One that does not fits after retryAfter,
// exactly: not a nanosecond before. It leaves the stored moment as it is, with one exception, for which next is to be stored always:
// a moment further ahead than this limit can have put it, and than clocks may differ (a minute), is from a clock that was wrong
// or from a larger limit. It counts as a budget that is just spent, so that a clock that was set back blocks nobody for long.
func (l Limit) Take(stored, now int64) (next int64, ok bool, retryAfter time.Duration) {
	interval, early := l.Schedule()
	if interval == 0 {
		return stored, false, math.MaxInt64
	}
	if spent := now + early + interval; stored > spent+maxSkew {
		stored = spent
	}
	due := max(stored, now)
	if wait := due - early - now; wait > 0 {
		return stored, false, time.Duration(wait)
	}
	return due + interval, true, 0
}

// Divide is the share of one of n servers: an nth of the rate, to the event, and of the burst, which is at least 1.
// A share is never more than l, and never nothing where l allows something. Its period ends at 36 years.
func (l Limit) Divide(n int) Limit {
	if n <= 1 || l.Count <= 0 || l.Period <= 0 || l.Burst <= 0 {
		return l
	}
	share := Limit{Count: l.Count, Period: farthest, Burst: max(1, l.Burst/n)}
	if int64(n) <= farthest/int64(l.Period) {
		share.Period = l.Period * time.Duration(n)
	}
	return share
}
