package policy

import (
	"context"
	"errors"
	"time"

	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// ErrStoreFull is returned by a store that cannot remember one more live delivery. The policy's onStoreFailure decides then.
var ErrStoreFull = errors.New("store is full")

// Key names a rate bucket within an endpoint. It is a hash, so that no sender data reaches a store.
type Key [16]byte

// Token names one reservation: 128 random bits, made by the store.
type Token [16]byte

// Bucket is one rate limit to test.
type Bucket struct {
	Key   Key
	Limit rate.Limit
}

// Take asks a store, in one step, whether a delivery was seen before and whether it is within its limits.
//
// The delivery is looked up first. A duplicate that is in flight, or is not to be tagged, writes nothing and spends nothing. Then all
// limits are tested; one that is spent refuses the delivery, and nothing is written but what rate.Limit.Take corrects in a moment that
// cannot be. Then everything is written. The keys of its buckets are distinct.
type Take struct {
	// Time is the moment of the decision. A shared store may use its own clock instead.
	Time     time.Time
	Endpoint string
	// Stream is Envoy's id of the stream; empty where there is none. A second Take of the same endpoint, stream and messages
	// within StreamWindow is a retry: it gets the first one's answer and spends nothing, and the record stands until each of them has released it.
	Stream string
	// Messages identify the signed message, one for each live secret. Any that is remembered makes a duplicate. None: no replay memory.
	Messages []signature.MessageID
	// Window is how long the delivery is remembered.
	Window time.Duration
	// Tag says that a duplicate goes on to the limits and spends them, and is remembered as before.
	Tag bool
	// Reservation, if not 0, makes the record a reservation that ends after this time unless Settle confirms it.
	Reservation time.Duration
	// Buckets are the limits to test and to spend.
	Buckets []Bucket
	// Peek tests without writing, but for that correction: an address that is only peeked at must not be blocked by a clock that was wrong.
	Peek bool
}

// StreamWindow is how long a second check of the same Envoy stream counts as Envoy's own retry.
const StreamWindow = 10 * time.Second

// MaxReleases is how often a delivery is released within its window before it counts as confirmed.
const MaxReleases = 5

// Taken is a store's verdict on a Take. The zero value is: new, within its limits, nothing reserved.
type Taken struct {
	// Retry says that this stream was taken before: the rest is what it got then.
	Retry bool
	// Duplicate says that the delivery was seen before and its record stands.
	Duplicate bool
	// InFlight says that the delivery's reservation is still open. Only with Duplicate. RetryAfter is when it ends.
	InFlight bool
	// Limited is the number of the first bucket that refuses, counted from 1; 0 where none does.
	Limited int
	// RetryAfter is when the refusing bucket, or the open reservation, would let the delivery pass.
	RetryAfter time.Duration
	// Token names the reservation that was made. Only where Take.Reservation asks for one.
	Token Token
}

// Store keeps rate and replay state. Implementations are safe for concurrent use.
// An error means that no verdict could be had: onStoreFailure decides.
type Store interface {
	Take(ctx context.Context, t *Take) (Taken, error)
	// Release forgets the record that this Take has just made, because its delivery was not let through after all. Quota stays spent. Where
	// other Takes of the stream were told of the record, it is forgotten with the last of them.
	Release(ctx context.Context, t *Take) error
	// Settle ends the reservation of an endpoint: confirmed, it is remembered for its window; else the same delivery may come again, at
	// most MaxReleases times. An unknown, used or foreign token changes nothing and reports false.
	Settle(ctx context.Context, now time.Time, endpoint string, token Token, confirmed bool) (bool, error)
}
