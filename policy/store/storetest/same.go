package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// Same compares two stores over random lives, which are wilder than those of the laws: limits of odd intervals and of a century, limits that a
// reload has changed, reservations by the dozen that end at once. Whatever happens both give the same verdicts. Moments and spans are whole
// microseconds, which is as finely as a shared store keeps time.
func Same(t *testing.T, one, other policy.Store) {
	t.Helper()
	life := 0
	t.Run("deliveries", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			life++
			p := &pair{T: t, one: one, other: other, now: start, tokens: []twin{{}, {policy.Token{1}, policy.Token{1}}}, streams: map[string]time.Time{},
				endpoint: fmt.Sprintf("same/%d/%d", start.UnixNano(), life)}
			for range rapid.IntRange(1, 100).Draw(t, "steps") {
				p.step()
			}
		})
	})
	t.Run("limits", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			life++
			p := &pair{T: t, one: one, other: other, now: start, endpoint: fmt.Sprintf("same/%d/%d", start.UnixNano(), life)}
			for _, k := range []policy.Key{x, y} { // neither is forgotten then, which would show where a clock is set back
				p.take(policy.Take{Buckets: bucket(k, once)})
			}
			for range rapid.IntRange(1, 100).Draw(t, "steps") {
				p.now = p.now.Add(time.Duration(rapid.Int64Range(-200e6, 200e6).Draw(t, "pass")) * time.Microsecond)
				p.take(policy.Take{Buckets: p.buckets(), Peek: rapid.IntRange(0, 5).Draw(t, "peek") == 0})
			}
		})
	})
}

// pair is two stores that live the same life.
type pair struct {
	*rapid.T
	one, other policy.Store
	endpoint   string
	now        time.Time
	takes      []policy.Take
	tokens     []twin
	streams    map[string]time.Time // when each was answered first
}

// twin is the tokens that two stores gave for one reservation.
type twin struct{ one, other policy.Token }

func (p *pair) step() {
	p.now = p.now.Add(rapid.SampledFrom([]time.Duration{0, 0, 0, time.Microsecond, 777 * time.Millisecond, time.Second, 5 * time.Second, 11 * time.Second, time.Minute}).Draw(p.T, "pass"))
	switch action := rapid.IntRange(0, 9).Draw(p.T, "action"); {
	case action < 6:
		p.take(p.draw())
	case action < 8 && len(p.takes) > 0:
		p.release(rapid.SampledFrom(p.takes[max(0, len(p.takes)-6):]).Draw(p.T, "released"))
	default:
		p.settle(rapid.SampledFrom(p.tokens[max(0, len(p.tokens)-6):]).Draw(p.T, "token"), rapid.IntRange(0, 3).Draw(p.T, "confirmed") == 0)
	}
}

func (p *pair) draw() policy.Take {
	t := policy.Take{
		Stream:   rapid.SampledFrom([]string{"", "", "r", "s", "t"}).Draw(p.T, "stream"),
		Messages: rapid.SliceOfN(rapid.Map(rapid.ByteRange('a', 'l'), func(b byte) signature.MessageID { return signature.MessageID{b} }), 0, 4).Draw(p.T, "messages"),
		Window:   rapid.SampledFrom([]time.Duration{time.Microsecond, time.Second, time.Minute, 10 * time.Minute}).Draw(p.T, "window"),
		Tag:      rapid.Bool().Draw(p.T, "tag"),
		Peek:     rapid.IntRange(0, 7).Draw(p.T, "peek") == 0,
		Buckets:  p.buckets(),
	}
	if rapid.Bool().Draw(p.T, "reserved") {
		t.Reservation = rapid.SampledFrom([]time.Duration{time.Microsecond, time.Second, 20 * time.Second}).Draw(p.T, "reservation")
	}
	return t
}

func (p *pair) buckets() (all []policy.Bucket) {
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]policy.Key{x, y}), 0, 2, rapid.ID).Draw(p.T, "keys") {
		l := rapid.SampledFrom([]rate.Limit{
			{Count: 3, Period: time.Second, Burst: 3}, {Count: 7, Period: time.Minute, Burst: 2}, {Count: 1_000_000, Period: time.Second, Burst: 5},
			{Count: 11, Period: 13 * time.Hour, Burst: 40}, {Count: 1, Period: 100 * 24 * time.Hour, Burst: 2}, {},
		}).Draw(p.T, "limit")
		all = append(all, policy.Bucket{Key: k, Limit: l})
	}
	return all
}

func (p *pair) take(t policy.Take) {
	t.Time, t.Endpoint = p.now, p.endpoint
	got, err := p.one.Take(p.Context(), &t)
	if err != nil {
		p.Fatalf("one: %v", err)
	}
	want, err := p.other.Take(p.Context(), &t)
	if err != nil {
		p.Fatalf("other: %v", err)
	}
	tokens := twin{got.Token, want.Token}
	if tokens != (twin{}) && !got.Retry {
		p.tokens = append(p.tokens, tokens)
	}
	if (got.Token == policy.Token{}) != (want.Token == policy.Token{}) {
		p.Fatalf("%+v: one gives the token %x, the other %x", t, got.Token, want.Token)
	}
	got.Token, want.Token = policy.Token{}, policy.Token{}
	if diff := cmp.Diff(want, got); diff != "" {
		p.Fatalf("%+v: verdict (-other +one):\n%s", t, diff)
	}
	if t.Peek || got.Limited > 0 || got.Duplicate && (got.InFlight || !t.Tag) {
		return
	}
	if !got.Retry && t.Stream != "" {
		p.streams[modelStream(&t)] = t.Time
	}
	p.takes = append(p.takes, t)
}

// release comes while the check is under way: nothing has ended yet.
func (p *pair) release(t policy.Take) {
	if since := p.now.Sub(t.Time); t.Reservation > 0 && since >= t.Reservation || since >= t.Window || t.Stream != "" && p.now.Sub(p.streams[modelStream(&t)]) >= policy.StreamWindow {
		return
	}
	if err := p.one.Release(p.Context(), &t); err != nil {
		p.Fatalf("one: %v", err)
	}
	if err := p.other.Release(p.Context(), &t); err != nil {
		p.Fatalf("other: %v", err)
	}
}

func (p *pair) settle(t twin, confirmed bool) {
	got, err := p.one.Settle(p.Context(), p.now, p.endpoint, t.one, confirmed)
	if err != nil {
		p.Fatalf("one: %v", err)
	}
	want, err := p.other.Settle(p.Context(), p.now, p.endpoint, t.other, confirmed)
	if err != nil || got != want {
		p.Fatalf("settle: one says %v, the other %v, %v", got, want, err)
	}
}
