// Package storetest is what every policy.Store must do, as tests: each engine runs the same suite.
package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// Run runs the suite. open gives a store that goes by Take.Time, and by the time given to Settle, instead of a clock of its own; it
// may give the same store every time, because each test has endpoints of its own. All moments and limits
// of the suite are whole milliseconds, so that an engine may keep time as coarsely as that.
func Run(t *testing.T, open func(t *testing.T) policy.Store) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.run(&fixture{T: t, store: open(t), endpoint: t.Name(), now: start})
		})
	}
	t.Run("laws", func(t *testing.T) { laws(t, open(t)) })
}

var start = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

const (
	window      = 10 * time.Minute
	reservation = 30 * time.Second
)

// Messages, bucket keys, and a limit with an interval of one second and a burst of two.
var (
	a, b, c = signature.MessageID{'a'}, signature.MessageID{'b'}, signature.MessageID{'c'}
	x, y    = policy.Key{'x'}, policy.Key{'y'}
	limit   = rate.Limit{Count: 60, Period: time.Minute, Burst: 2}
	once    = rate.Limit{Count: 1, Period: time.Hour, Burst: 1}
)

// fixture is a store, a clock that stands still until it is moved, and an endpoint.
type fixture struct {
	*testing.T
	store    policy.Store
	endpoint string
	now      time.Time
}

func (f *fixture) pass(d time.Duration) { f.now = f.now.Add(d) }

// take fills in the moment and the endpoint. It is for any goroutine.
func (f *fixture) take(t policy.Take) policy.Taken {
	f.Helper()
	taken, err := f.store.Take(f.Context(), f.filled(&t))
	if err != nil {
		f.Errorf("take: %v", err)
	}
	return taken
}

func (f *fixture) filled(t *policy.Take) *policy.Take {
	if t.Time.IsZero() {
		t.Time = f.now
	}
	if t.Endpoint == "" {
		t.Endpoint = f.endpoint
	}
	return t
}

// want is a take with the verdict it must have.
func (f *fixture) want(t policy.Take, want policy.Taken) {
	f.Helper()
	if diff := cmp.Diff(want, f.take(t)); diff != "" {
		f.Errorf("verdict (-want +got):\n%s", diff)
	}
}

// reserve is a take that must make a reservation.
func (f *fixture) reserve(t policy.Take) policy.Token {
	f.Helper()
	taken := f.take(t)
	token := taken.Token
	taken.Token = policy.Token{}
	if diff := cmp.Diff(policy.Taken{}, taken); diff != "" {
		f.Errorf("verdict (-want +got):\n%s", diff)
	}
	if token == (policy.Token{}) {
		f.Error("the reservation has no token")
	}
	return token
}

func (f *fixture) release(t policy.Take) {
	f.Helper()
	if err := f.store.Release(f.Context(), f.filled(&t)); err != nil {
		f.Errorf("release: %v", err)
	}
}

func (f *fixture) settle(token policy.Token, confirmed, want bool) {
	f.Helper()
	f.settleAt(f.endpoint, token, confirmed, want)
}

func (f *fixture) settleAt(endpoint string, token policy.Token, confirmed, want bool) {
	f.Helper()
	got, err := f.store.Settle(f.Context(), f.now, endpoint, token, confirmed)
	if err != nil || got != want {
		f.Errorf("settle: got %v, %v, want %v", got, err, want)
	}
}

func messages(ids ...signature.MessageID) []signature.MessageID { return ids }

func bucket(k policy.Key, l rate.Limit) []policy.Bucket { return []policy.Bucket{{Key: k, Limit: l}} }

// The deliveries and verdicts that most tests are made of.
var (
	taken     = policy.Taken{}
	duplicate = policy.Taken{Duplicate: true}
)

func limited(n int, after time.Duration) policy.Taken {
	return policy.Taken{Limited: n, RetryAfter: after}
}

func inFlight(after time.Duration) policy.Taken {
	return policy.Taken{Duplicate: true, InFlight: true, RetryAfter: after}
}

func delivery(ids ...signature.MessageID) policy.Take {
	return policy.Take{Messages: ids, Window: window}
}

func reserved(ids ...signature.MessageID) policy.Take {
	return policy.Take{Messages: ids, Window: window, Reservation: reservation}
}

var tests = []struct {
	name string
	run  func(*fixture)
}{
	{"nothing asked", func(f *fixture) {
		f.want(policy.Take{}, taken)
		f.want(policy.Take{}, taken)
	}},
	{"limit: a burst, then the rate, and an exact retry-after", func(f *fixture) {
		t := policy.Take{Buckets: bucket(x, limit)}
		f.want(t, taken)
		f.want(t, taken)
		f.want(t, limited(1, time.Second))
		f.pass(400 * time.Millisecond)
		f.want(t, limited(1, 600*time.Millisecond))
		f.pass(599 * time.Millisecond)
		f.want(t, limited(1, time.Millisecond))
		f.pass(time.Millisecond)
		f.want(t, taken)
		f.want(t, limited(1, time.Second))
		f.pass(time.Hour)
		f.want(t, taken)
		f.want(t, taken)
		f.want(t, limited(1, time.Second))
	}},
	{"limit: keys and endpoints have buckets of their own", func(f *fixture) {
		f.want(policy.Take{Buckets: bucket(x, once)}, taken)
		f.want(policy.Take{Buckets: bucket(x, once)}, limited(1, time.Hour))
		f.want(policy.Take{Buckets: bucket(y, once)}, taken)
		f.want(policy.Take{Buckets: bucket(x, once), Endpoint: f.endpoint + "/other"}, taken)
	}},
	{"limit: several are spent all or not at all", func(f *fixture) {
		both := policy.Take{Buckets: append(bucket(x, limit), bucket(y, once)...)}
		f.want(both, taken)
		f.want(both, limited(2, time.Hour))
		f.want(both, limited(2, time.Hour))
		f.want(policy.Take{Buckets: bucket(x, limit)}, taken) // its second: the refusals have spent none
		f.want(both, limited(1, time.Second))                 // the first that refuses is named
		f.pass(time.Hour)
		f.want(both, taken)
	}},
	{"limit: the zero limit lets nothing through", func(f *fixture) {
		got := f.take(policy.Take{Buckets: bucket(x, rate.Limit{}), Messages: messages(a), Window: window})
		if got.Limited != 1 || got.RetryAfter <= 0 {
			f.Errorf("got %+v, want limited by bucket 1", got)
		}
		f.want(delivery(a), taken)
	}},
	{"limit: a clock that is behind lets nothing more through and blocks no longer than an interval after it is right", func(f *fixture) {
		t := policy.Take{Buckets: bucket(x, limit)}
		f.want(t, taken)
		f.want(t, taken)
		f.pass(-10 * time.Second)
		f.want(t, limited(1, 11*time.Second))
		f.pass(11 * time.Second)
		f.want(t, taken)
	}},
	{"limit: a clock that is set back far blocks for an interval", func(f *fixture) {
		t := policy.Take{Buckets: bucket(x, limit)}
		f.want(t, taken)
		f.want(t, taken)
		f.pass(-24 * time.Hour)
		f.want(t, limited(1, time.Second))
		f.pass(time.Second)
		f.want(t, taken)
		f.want(t, limited(1, time.Second))
	}},
	{"replay: a message is remembered for its window", func(f *fixture) {
		f.want(delivery(a), taken)
		f.want(delivery(a), duplicate)
		f.want(delivery(b), taken)
		f.pass(window - time.Millisecond)
		f.want(delivery(a), duplicate)
		f.pass(time.Millisecond)
		f.want(delivery(a), taken) // the duplicates did not make it longer
		f.want(delivery(a), duplicate)
	}},
	{"replay: each record has its own window", func(f *fixture) {
		f.want(policy.Take{Messages: messages(a), Window: time.Hour}, taken)
		f.want(policy.Take{Messages: messages(b), Window: time.Second}, taken)
		f.pass(time.Second)
		f.want(delivery(a), duplicate)
		f.want(delivery(b), taken)
	}},
	{"replay: the longest times do not end early", func(f *fixture) {
		const longest = time.Duration(1<<63 - 1)
		f.want(policy.Take{Messages: messages(a), Window: longest}, taken)
		f.reserve(policy.Take{Messages: messages(b), Window: longest, Reservation: longest})
		f.pass(365 * 24 * time.Hour)
		f.want(delivery(a), duplicate)
		if got := f.take(delivery(b)); !got.InFlight || got.RetryAfter <= 0 {
			f.Errorf("got %+v, want in flight", got)
		}
	}},
	{"replay: any of the messages makes a duplicate, which records none of the others", func(f *fixture) {
		f.want(delivery(a, b), taken)
		f.want(delivery(a), duplicate)
		f.want(delivery(b), duplicate)
		f.want(delivery(c, b), duplicate)
		f.want(delivery(c), taken)
	}},
	{"replay: two secrets that are alike give one message", func(f *fixture) {
		f.want(delivery(a, a), taken)
		f.want(delivery(a, a), duplicate)
		f.pass(window)
		f.want(delivery(a, a), taken)
	}},
	{"replay: endpoints remember for themselves", func(f *fixture) {
		other := delivery(a)
		other.Endpoint = f.endpoint + "/other"
		f.want(delivery(a), taken)
		f.want(other, taken)
		f.want(other, duplicate)
	}},
	{"replay: a duplicate spends nothing", func(f *fixture) {
		t := delivery(a)
		t.Buckets = bucket(x, limit)
		f.want(t, taken)
		f.want(t, duplicate)
		f.want(t, duplicate)
		f.want(policy.Take{Buckets: bucket(x, limit)}, taken)
		f.want(policy.Take{Buckets: bucket(x, limit)}, limited(1, time.Second))
		f.want(t, duplicate) // looked up before the limits are tested
	}},
	{"replay: what is refused for its rate burns no id", func(f *fixture) {
		f.want(policy.Take{Buckets: bucket(x, once)}, taken)
		t := delivery(a)
		t.Buckets = bucket(x, once)
		f.want(t, limited(1, time.Hour))
		f.want(delivery(a), taken)
	}},
	{"tag: a duplicate spends quota and keeps its record", func(f *fixture) {
		t := delivery(a)
		t.Tag, t.Buckets = true, bucket(x, limit)
		f.want(t, taken)
		f.want(t, duplicate)
		f.want(t, policy.Taken{Duplicate: true, Limited: 1, RetryAfter: time.Second})
		f.pass(window - time.Millisecond)
		f.want(t, duplicate)
		f.pass(time.Millisecond)
		f.want(t, taken)
	}},
	{"retry: the same stream has the same answer for a while and spends nothing", func(f *fixture) {
		t := delivery(a)
		t.Stream, t.Buckets = "s", bucket(x, once)
		retry := policy.Taken{Retry: true}
		f.want(t, taken)
		f.want(t, retry)
		f.pass(policy.StreamWindow - time.Millisecond)
		f.want(t, retry)
		f.pass(time.Millisecond)
		f.want(t, duplicate)
	}},
	{"retry: another stream, message or endpoint is none", func(f *fixture) {
		t := delivery(a)
		t.Stream = "s"
		f.want(t, taken)
		other := t
		other.Stream = "r"
		f.want(other, duplicate)
		other.Stream = ""
		f.want(other, duplicate)
		other = t
		other.Messages = messages(b)
		f.want(other, taken)
		other = t
		other.Messages = messages(a, c)
		f.want(other, duplicate)
		other = t
		other.Endpoint = f.endpoint + "/other"
		f.want(other, taken)
	}},
	{"retry: without messages too", func(f *fixture) {
		t := policy.Take{Stream: "s", Buckets: bucket(x, once)}
		f.want(t, taken)
		f.want(t, policy.Taken{Retry: true})
		t.Stream = "r"
		f.want(t, limited(1, time.Hour))
	}},
	{"retry: a tagged duplicate stays one", func(f *fixture) {
		f.want(delivery(a), taken)
		t := delivery(a)
		t.Tag, t.Stream, t.Buckets = true, "s", bucket(x, once)
		f.want(t, duplicate)
		f.want(t, policy.Taken{Retry: true, Duplicate: true})
	}},
	{"retry: of a reservation has its token", func(f *fixture) {
		t := reserved(a)
		t.Stream = "s"
		token := f.reserve(t)
		f.want(t, policy.Taken{Retry: true, Token: token})
		f.settle(token, true, true)
		f.settle(token, true, false)
	}},
	{"retry: a refusal is not remembered", func(f *fixture) {
		f.want(policy.Take{Buckets: bucket(y, once)}, taken)
		t := delivery(a)
		t.Stream, t.Buckets = "s", append(bucket(x, limit), bucket(y, once)...)
		f.want(t, limited(2, time.Hour))
		f.want(t, limited(2, time.Hour))
		t.Buckets = nil
		f.want(t, taken)
	}},
	{"peek: says what a take would get and writes nothing", func(f *fixture) {
		t := policy.Take{Peek: true, Stream: "s", Messages: messages(a), Window: window, Reservation: reservation, Buckets: bucket(x, once)}
		f.want(t, taken)
		f.want(t, taken)
		t.Peek = false
		token := f.reserve(t)
		t.Peek = true
		f.want(t, policy.Taken{Retry: true, Token: token})
		t.Stream = ""
		f.want(t, inFlight(reservation))
		f.want(policy.Take{Peek: true, Buckets: bucket(x, once)}, limited(1, time.Hour))
		f.settle(token, true, true)
		f.want(t, duplicate)
		t.Tag = true
		f.want(t, policy.Taken{Duplicate: true, Limited: 1, RetryAfter: time.Hour})
	}},
	{"reservation: a duplicate is in flight until it ends, tagged or not, and spends nothing", func(f *fixture) {
		f.reserve(reserved(a, b))
		t := reserved(b)
		t.Stream, t.Buckets = "s", bucket(x, once)
		f.want(t, inFlight(reservation))
		f.want(t, inFlight(reservation))
		t.Tag = true
		f.want(t, inFlight(reservation))
		f.want(t, inFlight(reservation)) // the stream was not remembered
		f.pass(reservation - time.Millisecond)
		f.want(t, inFlight(time.Millisecond))
		f.want(policy.Take{Buckets: bucket(x, once)}, taken)
	}},
	{"reservation: confirmed, it is remembered for its window", func(f *fixture) {
		f.settle(f.reserve(reserved(a, b)), true, true)
		f.want(reserved(a), duplicate)
		f.pass(reservation)
		f.want(reserved(b), duplicate)
		f.pass(window - reservation - time.Millisecond)
		f.want(reserved(a), duplicate)
		f.pass(time.Millisecond)
		f.reserve(reserved(a))
	}},
	{"reservation: released, the same message may be taken again", func(f *fixture) {
		first := f.reserve(reserved(a, b))
		f.settle(first, false, true)
		second := f.reserve(reserved(b))
		if first == second {
			f.Error("two reservations have one token")
		}
		f.want(reserved(b), inFlight(reservation))
		f.settle(first, true, false)
		f.want(reserved(b), inFlight(reservation))
		f.settle(second, true, true)
		f.want(reserved(b), duplicate)
	}},
	{"reservation: its end without a word releases", func(f *fixture) {
		token := f.reserve(reserved(a))
		f.pass(reservation)
		f.settle(token, true, false) // too late: it changes nothing
		f.settle(token, false, false)
		f.reserve(reserved(a))
	}},
	{"reservation: settled just before its end", func(f *fixture) {
		token := f.reserve(reserved(a))
		f.pass(reservation - time.Millisecond)
		f.settle(token, true, true)
		f.pass(time.Millisecond)
		f.want(reserved(a), duplicate)
	}},
	{"reservation: a token that is late leaves the next one alone", func(f *fixture) {
		late := f.reserve(reserved(a))
		f.pass(reservation)
		f.reserve(reserved(a))
		f.settle(late, false, false)
		f.want(reserved(a), inFlight(reservation))
		f.settle(late, true, false)
		f.want(reserved(a), inFlight(reservation))
	}},
	{"reservation: an unknown, empty or foreign token changes nothing", func(f *fixture) {
		f.settle(policy.Token{1}, true, false) // an endpoint that nothing was taken for
		token := f.reserve(reserved(a))
		other := reserved(a)
		other.Endpoint = f.endpoint + "/other"
		foreign := f.reserve(other)
		f.want(delivery(b), taken) // has no token
		for _, confirmed := range []bool{true, false} {
			f.settle(policy.Token{}, confirmed, false)
			f.settle(policy.Token{1}, confirmed, false)
			f.settle(foreign, confirmed, false)
			f.settleAt(other.Endpoint, token, confirmed, false)
		}
		f.want(reserved(a), inFlight(reservation))
		f.want(other, inFlight(reservation))
		f.want(delivery(b), duplicate)
		f.settle(token, true, true)
		f.want(other, inFlight(reservation))
	}},
	{"reservation: a token is used once", func(f *fixture) {
		token := f.reserve(reserved(a))
		f.settle(token, true, true)
		f.settle(token, false, false)
		f.want(reserved(a), duplicate)
	}},
	{"reservation: released so often, it counts as confirmed", func(f *fixture) {
		for range policy.MaxReleases {
			f.settle(f.reserve(reserved(a, b)), false, true)
		}
		f.settle(f.reserve(reserved(a)), false, true)
		f.want(reserved(a), duplicate)
		f.pass(window - time.Millisecond)
		f.want(reserved(a), duplicate)
		f.pass(time.Millisecond)
		for range policy.MaxReleases { // its window has ended, and the count with it
			f.settle(f.reserve(reserved(a)), false, true)
		}
		f.reserve(reserved(a))
	}},
	{"reservation: a delivery that is taken under another of its messages takes its count along", func(f *fixture) {
		f.settle(f.reserve(reserved(a, b)), false, true)
		f.settle(f.reserve(reserved(b, c)), true, true)
		for range policy.MaxReleases { // nothing is left under the first
			f.settle(f.reserve(reserved(a)), false, true)
		}
		f.reserve(reserved(a))
		f.want(reserved(c), duplicate)
	}},
	{"reservation: ends without a word are releases that count", func(f *fixture) {
		for i := range policy.MaxReleases + 1 {
			token := f.reserve(reserved(a))
			if i%2 == 0 {
				f.settle(token, false, true)
			} else {
				f.pass(reservation)
			}
		}
		f.pass(reservation)
		f.want(reserved(a), duplicate)
	}},
	{"reservation: one that was settled for the last time is confirmed though it ends", func(f *fixture) {
		for range policy.MaxReleases {
			f.reserve(reserved(a))
			f.pass(reservation)
		}
		f.reserve(reserved(a))
		f.pass(reservation - time.Millisecond)
		f.want(reserved(a), inFlight(time.Millisecond))
		f.pass(time.Millisecond)
		f.want(reserved(a), duplicate)
	}},
	{"reservation: longer than the window, it is in flight to its end", func(f *fixture) {
		t := reserved(a)
		t.Window = time.Second
		f.reserve(t)
		f.pass(time.Second)
		f.want(t, inFlight(reservation-time.Second))
	}},
	{"reservation: a tagged duplicate of a confirmed one makes none", func(f *fixture) {
		f.settle(f.reserve(reserved(a)), true, true)
		t := reserved(a)
		t.Tag = true
		f.want(t, duplicate)
	}},
	{"reservation: without messages there is none", func(f *fixture) {
		f.want(policy.Take{Reservation: reservation, Window: window}, taken)
	}},
	{"release: the delivery is new again, its quota stays spent", func(f *fixture) {
		t := delivery(a, b)
		t.Stream, t.Buckets = "s", bucket(x, limit)
		f.want(t, taken)
		f.release(t)
		f.want(t, taken)
		f.release(t)
		f.want(t, limited(1, time.Second))
		f.want(delivery(a), taken)
		f.want(delivery(b), taken)
	}},
	{"release: of a reservation ends its token and is not one of its releases", func(f *fixture) {
		t := reserved(a)
		for range policy.MaxReleases + 2 {
			t.Time = f.now
			token := f.reserve(t)
			f.release(t)
			f.settle(token, true, false)
			f.pass(time.Millisecond)
		}
		t.Time = f.now
		f.reserve(t)
	}},
	{"release: does not forget what the application released", func(f *fixture) {
		for range policy.MaxReleases {
			f.settle(f.reserve(reserved(a)), false, true)
			f.pass(time.Millisecond)
		}
		t := f.filled(&policy.Take{Messages: messages(a), Window: window, Reservation: reservation})
		f.reserve(*t)
		f.release(*t)
		f.pass(time.Millisecond)
		f.settle(f.reserve(reserved(a)), false, true)
		f.want(reserved(a), duplicate)
	}},
	{"release: of a duplicate changes nothing", func(f *fixture) {
		f.want(delivery(a), taken)
		f.pass(time.Second)
		t := *f.filled(&policy.Take{Messages: messages(a), Window: window, Stream: "s"})
		f.want(t, duplicate)
		f.release(t)
		f.want(delivery(a), duplicate)
		t.Tag = true
		f.want(t, duplicate)
		f.release(t)
		f.want(delivery(a), duplicate)
	}},
	{"release: of a take that was refused changes nothing", func(f *fixture) {
		f.want(delivery(b), taken)
		f.want(policy.Take{Buckets: bucket(x, once)}, taken)
		f.pass(time.Second)
		t := *f.filled(&policy.Take{Messages: messages(a), Window: window, Stream: "s", Buckets: bucket(x, once)})
		f.want(t, limited(1, time.Hour-time.Second))
		f.release(t)
		f.release(policy.Take{Messages: messages(c), Window: window, Stream: "s", Endpoint: f.endpoint + "/never"})
		f.want(delivery(b), duplicate)
	}},
	{"release: an old one leaves a newer record alone", func(f *fixture) {
		old := *f.filled(&policy.Take{Messages: messages(a), Window: time.Second, Stream: "s"})
		f.want(old, taken)
		f.pass(time.Minute)
		t := delivery(a)
		t.Stream = "s"
		f.want(t, taken)
		f.release(old)
		f.want(t, policy.Taken{Retry: true})
		t.Stream = "r"
		f.want(t, duplicate)
	}},
	{"release: of a delivery that the application took changes nothing", func(f *fixture) {
		t := *f.filled(&policy.Take{Messages: messages(a), Window: window, Reservation: reservation})
		f.settle(f.reserve(t), true, true)
		f.release(t)
		f.pass(time.Second)
		f.want(reserved(a), duplicate)
	}},
	{"release: what a retry was told stands, unless the retry itself releases it", func(f *fixture) {
		first := *f.filled(&policy.Take{Messages: messages(a), Window: window, Stream: "s"})
		f.want(first, taken)
		f.pass(time.Second)
		retry := first
		retry.Time = f.now
		f.want(retry, policy.Taken{Retry: true})
		f.release(first) // it hung up; the retry was let through
		f.want(retry, policy.Taken{Retry: true})
		f.want(delivery(a), duplicate)
		f.release(retry)
		f.want(delivery(a), taken)
	}},
	{"release: what was told to the one that came first stands too: it may be the one that was let through", func(f *fixture) {
		for _, t := range []policy.Take{delivery(a), reserved(b)} {
			t.Stream = "s"
			retry := *f.filled(&t)
			token := f.take(retry).Token
			f.pass(time.Second)
			late := t // Envoy had sent it before, and has given it up
			late.Time = f.now
			f.want(late, policy.Taken{Retry: true, Token: token})
			f.release(late)
			f.want(retry, policy.Taken{Retry: true, Token: token})
			other := t
			other.Stream = "r"
			if got := f.take(other); !got.Duplicate {
				f.Errorf("got %+v, want a duplicate", got)
			}
			f.release(late) // once more changes nothing
			if got := f.take(other); !got.Duplicate {
				f.Errorf("got %+v, want a duplicate", got)
			}
			f.release(retry)
			if got := f.take(other); got.Duplicate || got.Retry {
				f.Errorf("got %+v, want a new delivery", got)
			}
		}
	}},
	{"release: however many retries there are, what was told to one of them stands", func(f *fixture) {
		for _, retries := range []int{3, 7, 8, 20} {
			t := delivery(signature.MessageID{byte(retries)})
			t.Stream = "s"
			var all []policy.Take
			for range 1 + retries {
				t.Time = f.now
				all = append(all, t)
				f.take(t)
				f.pass(time.Millisecond)
			}
			other := t
			other.Time, other.Stream = f.now, "r"
			for _, released := range append(all[:2:2], all[3:]...) {
				f.release(released)
			}
			f.want(other, duplicate)
			f.release(all[2])
			if got := f.take(other); got.Duplicate != (retries > 7) { // they are not told apart then
				f.Errorf("%d retries that are released: got %+v", retries, got)
			}
		}
	}},
	{"release: of the latest, after its stream is forgotten", func(f *fixture) {
		t := delivery(a)
		t.Stream = "s"
		first := *f.filled(&t)
		f.want(first, taken)
		f.pass(time.Second)
		retry := t
		retry.Time = f.now
		f.want(retry, policy.Taken{Retry: true})
		f.pass(policy.StreamWindow)
		f.want(delivery(b), taken)
		f.release(first)
		f.want(delivery(a), duplicate)
		f.release(retry)
		f.want(delivery(a), taken)
	}},
	{"release: a stream that is taken again is remembered from then on", func(f *fixture) {
		t := *f.filled(&policy.Take{Messages: messages(a), Window: window, Stream: "s"})
		f.want(t, taken)
		f.release(t)
		f.pass(policy.StreamWindow / 2)
		t.Time = f.now
		f.want(t, taken)
		f.pass(policy.StreamWindow - time.Millisecond)
		t.Time = f.now
		f.want(t, policy.Taken{Retry: true})
		f.pass(time.Millisecond)
		t.Time = f.now
		f.want(t, duplicate)
	}},
	{"release: a peek is no retry that was told anything", func(f *fixture) {
		first := *f.filled(&policy.Take{Messages: messages(a), Window: window, Stream: "s"})
		f.want(first, taken)
		f.pass(time.Second)
		peek := first
		peek.Time, peek.Peek = f.now, true
		f.want(peek, policy.Taken{Retry: true})
		f.release(first)
		f.want(delivery(a), taken)
	}},
	{"concurrency: never one over the limit", func(f *fixture) {
		n := f.atOnce(func(i int) bool {
			return f.take(policy.Take{Stream: fmt.Sprint(i), Buckets: append(bucket(y, rate.Limit{Count: 1000, Period: time.Second, Burst: 1000}),
				bucket(x, rate.Limit{Count: 1, Period: time.Hour, Burst: 20})...)}) == taken
		})
		if n != 20 {
			f.Errorf("%d passed at once, want 20", n)
		}
	}},
	{"concurrency: one of many equal deliveries is new", func(f *fixture) {
		n := f.atOnce(func(i int) bool {
			t := delivery(a, b)
			if i%2 == 0 {
				t = delivery(b, c)
			}
			t.Stream, t.Buckets = fmt.Sprint(i), bucket(x, limit)
			return f.take(t) == taken
		})
		if n != 1 {
			f.Errorf("%d were new, want 1", n)
		}
		f.want(policy.Take{Buckets: bucket(x, limit)}, taken)
		f.want(policy.Take{Buckets: bucket(x, limit)}, limited(1, time.Second))
	}},
	{"concurrency: one of many retries is the first", func(f *fixture) {
		t := delivery(a)
		t.Stream, t.Buckets = "s", bucket(x, once)
		n := f.atOnce(func(int) bool { return f.take(t) != policy.Taken{Retry: true} })
		if n != 1 {
			f.Errorf("%d were no retry, want 1", n)
		}
	}},
	{"concurrency: a token is used once", func(f *fixture) {
		token := f.reserve(reserved(a))
		n := f.atOnce(func(i int) bool {
			ok, err := f.store.Settle(f.Context(), f.now, f.endpoint, token, i%2 == 0)
			return err != nil || ok
		})
		if n != 1 {
			f.Errorf("%d settled it, want 1", n)
		}
	}},
}

// atOnce calls from 64 goroutines and counts what was true.
func (f *fixture) atOnce(call func(i int) bool) int {
	const callers = 64
	var wait sync.WaitGroup
	begin := make(chan struct{})
	results := make([]bool, callers)
	for i := range callers {
		wait.Go(func() {
			<-begin
			results[i] = call(i)
		})
	}
	close(begin)
	wait.Wait()
	n := 0
	for _, r := range results {
		if r {
			n++
		}
	}
	return n
}
