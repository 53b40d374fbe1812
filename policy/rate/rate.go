// Package rate limits how often something may happen: "100/minute", with a burst.
package rate

import "time"

// Limit is a rate with a burst. The zero value allows nothing.
type Limit struct {
	Count  int           // events in each Period
	Period time.Duration // > 0
	Burst  int           // events that may happen at once; Count where the text names none
}
