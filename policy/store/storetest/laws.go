package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/rate"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// laws compares the store with a model that is too slow and too simple to be wrong in the same way, over random lives of two endpoints.
func laws(t *testing.T, store policy.Store) {
	life := 0
	rapid.Check(t, func(t *rapid.T) {
		life++
		m := &model{streams: map[string]modelAnswer{}, rates: map[string]int64{}}
		now := start
		var takes []policy.Take
		tokens := []policy.Token{{}, {1}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 3 * time.Second, 11 * time.Second, time.Minute}).Draw(t, "pass"))
			endpoint := fmt.Sprintf("laws/%d/%d/%s", start.UnixNano(), life, rapid.SampledFrom([]string{"p", "q"}).Draw(t, "endpoint"))
			switch action := rapid.IntRange(0, 9).Draw(t, "action"); {
			case action < 7:
				take := drawTake(t, now, endpoint)
				got, err := store.Take(t.Context(), &take)
				if err != nil {
					t.Fatalf("take: %v", err)
				}
				want := m.take(&take, got.Token)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%+v\nverdict (-want +got):\n%s", take, diff)
				}
				takes = append(takes, take)
				if got.Token != (policy.Token{}) && !got.Retry {
					if slices.Contains(tokens, got.Token) {
						t.Fatal("the token was given before")
					}
					tokens = append(tokens, got.Token)
				}
			case action == 7 && len(takes) > 0:
				take := rapid.SampledFrom(takes[max(0, len(takes)-3):]).Draw(t, "released")
				if given, ok := m.streams[modelStream(&take)]; ok && now.Sub(given.at) >= policy.StreamWindow { // engines differ in when they forget it
					continue
				}
				if err := store.Release(t.Context(), &take); err != nil {
					t.Fatalf("release: %v", err)
				}
				m.release(&take)
			default:
				token := rapid.SampledFrom(tokens[max(0, len(tokens)-3):]).Draw(t, "token")
				confirmed := rapid.Bool().Draw(t, "confirmed")
				got, err := store.Settle(t.Context(), now, endpoint, token, confirmed)
				if want := m.settle(now, endpoint, token, confirmed); err != nil || got != want {
					t.Fatalf("settle: got %v, %v, want %v", got, err, want)
				}
			}
		}
	})
}

func drawTake(t *rapid.T, now time.Time, endpoint string) policy.Take {
	take := policy.Take{
		Time:     now,
		Endpoint: endpoint,
		Stream:   rapid.SampledFrom([]string{"", "r", "s"}).Draw(t, "stream"),
		Messages: rapid.SliceOfN(rapid.SampledFrom([]signature.MessageID{a, b, c}), 0, 3).Draw(t, "messages"),
		Window:   rapid.SampledFrom([]time.Duration{5 * time.Second, time.Minute, 10 * time.Minute}).Draw(t, "window"),
		Tag:      rapid.Bool().Draw(t, "tag"),
		Peek:     rapid.IntRange(0, 5).Draw(t, "peek") == 0,
	}
	if rapid.Bool().Draw(t, "reserved") {
		take.Reservation = rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second}).Draw(t, "reservation")
	}
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]policy.Key{x, y}), 0, 2, rapid.ID).Draw(t, "keys") {
		take.Buckets = append(take.Buckets, policy.Bucket{Key: k, Limit: rate.Limit{Count: 1, Period: 4 * time.Second, Burst: 4}})
	}
	return take
}

// model is a policy.Store in lists that are searched from end to end.
type model struct {
	records []*modelRecord
	streams map[string]modelAnswer
	rates   map[string]int64
}

type modelRecord struct {
	endpoint  string
	ids       []signature.MessageID
	expires   time.Time
	end       time.Time // of the reservation
	state     string    // reserved, released or confirmed
	releases  int
	token     policy.Token
	by        string
	forgotten bool
}

type modelAnswer struct {
	taken policy.Taken
	at    time.Time
	by    []string // who was given it and has not released it
}

func modelStream(t *policy.Take) string { return fmt.Sprint(t.Endpoint, t.Stream, t.Messages) }
func modelOwner(t *policy.Take) string  { return fmt.Sprint(t.Endpoint, t.Stream, t.Time) }

// pass does what happens without a word.
func (m *model) pass(now time.Time) {
	for _, r := range m.records {
		if r.state == "reserved" && !now.Before(r.end) {
			r.settle(false)
		}
		if !now.Before(r.expires) {
			r.forgotten = true
		}
	}
	m.records = slices.DeleteFunc(m.records, func(r *modelRecord) bool { return r.forgotten })
}

func (r *modelRecord) settle(confirmed bool) {
	r.token, r.by = policy.Token{}, ""
	if confirmed || r.releases == policy.MaxReleases {
		r.state = "confirmed"
		return
	}
	r.releases++
	r.state = "released"
}

// find is the records of any of the messages, in their order.
func (m *model) find(t *policy.Take) (found []*modelRecord) {
	for _, id := range t.Messages {
		for _, r := range m.records {
			if r.endpoint == t.Endpoint && slices.Contains(r.ids, id) {
				found = append(found, r)
			}
		}
	}
	return found
}

// take is the verdict; a token is taken over from the store, because it is random.
func (m *model) take(t *policy.Take, token policy.Token) policy.Taken {
	m.pass(t.Time)
	stream, owner := modelStream(t), modelOwner(t)
	if first, ok := m.streams[stream]; ok && t.Stream != "" && t.Time.Before(first.at.Add(policy.StreamWindow)) {
		if !t.Peek && !slices.Contains(first.by, owner) && !slices.Contains(first.by, "") {
			if len(first.by) == 8 {
				owner = "" // nobody
			}
			m.handOver(t, first.by[len(first.by)-1], owner)
			first.by = append(first.by, owner)
			m.streams[stream] = first
		}
		return policy.Taken{Retry: true, Duplicate: first.taken.Duplicate, Token: first.taken.Token}
	}
	var taken policy.Taken
	found := m.find(t)
	for _, r := range found {
		switch r.state {
		case "reserved":
			return policy.Taken{Duplicate: true, InFlight: true, RetryAfter: r.end.Sub(t.Time)}
		case "confirmed":
			if taken.Duplicate = true; !t.Tag {
				return taken
			}
		}
		if taken.Duplicate {
			break
		}
	}
	for i, b := range t.Buckets {
		if _, ok, after := b.Limit.Take(m.rates[t.Endpoint+string(b.Key[:])], t.Time.UnixNano()); !ok {
			taken.Limited, taken.RetryAfter = i+1, after
			return taken
		}
	}
	if t.Peek {
		return taken
	}
	for _, b := range t.Buckets {
		key := t.Endpoint + string(b.Key[:])
		m.rates[key], _, _ = b.Limit.Take(m.rates[key], t.Time.UnixNano())
	}
	if !taken.Duplicate && len(t.Messages) > 0 {
		r := &modelRecord{endpoint: t.Endpoint, ids: slices.Clone(t.Messages), state: "confirmed", by: owner, expires: t.Time.Add(max(t.Window, t.Reservation))}
		if t.Reservation > 0 {
			r.state, r.end, r.token = "reserved", t.Time.Add(t.Reservation), token
			taken.Token = token
		}
		for _, old := range found {
			r.releases = max(r.releases, old.releases)
			old.forgotten = true
		}
		m.pass(t.Time)
		m.records = append(m.records, r)
	}
	if t.Stream != "" {
		m.streams[stream] = modelAnswer{taken, t.Time, []string{owner}}
	}
	return taken
}

func (m *model) settle(now time.Time, endpoint string, token policy.Token, confirmed bool) bool {
	m.pass(now)
	for _, r := range m.records {
		if r.endpoint == endpoint && r.state == "reserved" && r.token == token {
			r.settle(confirmed)
			return true
		}
	}
	return false
}

func (m *model) release(t *policy.Take) {
	owner, stream := modelOwner(t), modelStream(t)
	if given := m.streams[stream]; slices.Contains(given.by, owner) {
		given.by = slices.DeleteFunc(slices.Clone(given.by), func(by string) bool { return by == owner })
		if len(given.by) > 0 {
			m.streams[stream] = given
			m.handOver(t, owner, given.by[len(given.by)-1])
			return
		}
		delete(m.streams, stream)
	}
	for _, r := range m.find(t) {
		if r.by != owner {
			continue
		}
		if r.releases == 0 {
			r.forgotten = true
		}
		r.state, r.token, r.by = "released", policy.Token{}, ""
	}
}

func (m *model) handOver(t *policy.Take, from, to string) {
	for _, r := range m.find(t) {
		if r.by == from {
			r.by = to
		}
	}
}
