// Package store holds the engines that keep rate and replay state: in this process, or shared by many.
package store

import (
	"context"
	"crypto/rand"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// MemoryConfig bounds a Memory. Zero values take the defaults.
type MemoryConfig struct {
	// MaxDeliveries is the most remembered messages of one endpoint: a noisy endpoint cannot crowd out another. Default: 1,048,576.
	MaxDeliveries int
	// MaxBuckets is the most rate buckets of all endpoints. Beyond it the one that is nearest to being idle, of a few, is forgotten. Default: 4,194,304.
	MaxBuckets int
	// MaxStreams is the most streams of one endpoint that are remembered to tell Envoy's retries. Default: 65,536.
	MaxStreams int
}

const shardCount = 64

// Memory is a Store in this process. It needs no goroutine: what has expired is forgotten as deliveries come.
type Memory struct {
	config MemoryConfig
	seed   maphash.Seed
	shards [shardCount]shard
}

// NewMemory makes an empty Memory.
func NewMemory(c MemoryConfig) *Memory {
	if c.MaxDeliveries <= 0 {
		c.MaxDeliveries = 1 << 20
	}
	if c.MaxBuckets <= 0 {
		c.MaxBuckets = 1 << 22
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 1 << 16
	}
	m := &Memory{config: c, seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i] = shard{
			endpoints:  make(map[string]*endpoint),
			buckets:    make(map[bucketKey]int64),
			sweepAt:    minSweep,
			maxBuckets: max(1, c.MaxBuckets/shardCount),
		}
	}
	return m
}

// shard holds every key of its endpoints, so that one mutex makes a Take all or nothing.
type shard struct {
	mu         sync.Mutex
	endpoints  map[string]*endpoint // by the names in policy files
	buckets    map[bucketKey]int64  // the stored moment of rate.Limit.Take
	sweepAt    int                  // number of buckets at which idle ones are forgotten
	maxBuckets int
	evicted    [kinds]uint64
}

const minSweep = 1024

type bucketKey struct {
	endpoint *endpoint
	key      policy.Key
}

// endpoint is the memory of one endpoint.
type endpoint struct {
	deliveries   map[signature.MessageID]*record
	expiries     expiryQueue[signature.MessageID]
	reservations map[policy.Token]*record
	streams      map[uint64]stream
	streamEnds   expiryQueue[uint64]
}

// record is one remembered delivery. Its moments are Unix nanoseconds.
type record struct {
	expires  int64
	open     int64 // end of the reservation; 0: confirmed; released: free to be taken again
	made     uint64
	token    policy.Token
	releases uint8
}

// released marks a record whose delivery may come again.
const released = -1

// stream is what a stream's Take got.
type stream struct {
	expires   int64
	token     policy.Token
	duplicate bool
}

// Kinds of keys, as metrics name them.
const (
	kindRate = iota
	kindReplay
	kindStream
	kindReservation
	kinds
)

var kindNames = [kinds]string{"rate", "replay", "stream", "reservation"}

// Stats is how many keys of one kind there are, and how many were evicted because there was no room.
type Stats struct {
	Kind      string
	Keys      int
	Evictions uint64
}

// Stats counts the keys by kind.
func (m *Memory) Stats() []Stats {
	var keys [kinds]int
	var evicted [kinds]uint64
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		keys[kindRate] += len(s.buckets)
		for _, e := range s.endpoints {
			keys[kindReplay] += len(e.deliveries)
			keys[kindStream] += len(e.streams)
			keys[kindReservation] += len(e.reservations)
		}
		for k := range evicted {
			evicted[k] += s.evicted[k]
		}
		s.mu.Unlock()
	}
	out := make([]Stats, kinds)
	for k := range out {
		out[k] = Stats{kindNames[k], keys[k], evicted[k]}
	}
	return out
}

func (m *Memory) shard(endpoint string) *shard {
	return &m.shards[maphash.String(m.seed, endpoint)%shardCount]
}

func (s *shard) endpoint(name string) *endpoint {
	e := s.endpoints[name]
	if e == nil {
		e = &endpoint{
			deliveries:   make(map[signature.MessageID]*record),
			reservations: make(map[policy.Token]*record),
			streams:      make(map[uint64]stream),
		}
		s.endpoints[name] = e
	}
	return e
}

// streamKey names the stream of a Take: the same stream with another message is another one.
func (m *Memory) streamKey(t *policy.Take) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	h.WriteString(t.Stream)
	for i := range t.Messages {
		h.Write(t.Messages[i][:])
	}
	return h.Sum64()
}

// Take implements policy.Store.
func (m *Memory) Take(_ context.Context, t *policy.Take) (policy.Taken, error) {
	now := t.Time.UnixNano()
	s := m.shard(t.Endpoint)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoint(t.Endpoint)
	e.forget(now)
	var key uint64
	if t.Stream != "" {
		key = m.streamKey(t)
		if known, ok := e.streams[key]; ok && now < known.expires {
			return policy.Taken{Retry: true, Duplicate: known.duplicate, Token: known.token}, nil
		}
	}
	var taken policy.Taken
	known := e.lookUp(t.Messages, now)
	if known != nil {
		taken.Duplicate = true
		if known.open > 0 {
			taken.InFlight, taken.RetryAfter = true, time.Duration(known.open-now)
			return taken, nil
		}
		if !t.Tag {
			return taken, nil
		}
	}
	if limited, after := s.test(e, t.Buckets, now); limited > 0 {
		taken.Limited, taken.RetryAfter = limited, after
		return taken, nil
	}
	if t.Peek {
		return taken, nil
	}
	if known == nil && len(t.Messages) > 0 {
		token, err := e.record(t, now, m.config.MaxDeliveries)
		if err != nil {
			return policy.Taken{}, err
		}
		taken.Token = token
	}
	s.spend(e, t.Buckets, now)
	if t.Stream != "" {
		if len(e.streams) >= m.config.MaxStreams {
			e.dropStream()
			s.evicted[kindStream]++
		}
		end := now + int64(policy.StreamWindow)
		e.streams[key] = stream{end, taken.Token, taken.Duplicate}
		e.streamEnds.push(end, key)
	}
	return taken, nil
}

// lookUp is the record that stands against any of the messages. A reservation that ended without a word is released on the way.
func (e *endpoint) lookUp(messages []signature.MessageID, now int64) *record {
	for i := range messages {
		r := e.deliveries[messages[i]]
		if r == nil || now >= r.expires {
			continue
		}
		if r.open > 0 && now >= r.open {
			e.settle(r, now, false)
		}
		if r.open != released {
			return r
		}
	}
	return nil
}

// test is the number, from 1, of the first bucket that refuses, and when it would not.
func (s *shard) test(e *endpoint, buckets []policy.Bucket, now int64) (limited int, after time.Duration) {
	for i := range buckets {
		if _, ok, wait := buckets[i].Limit.Take(s.buckets[bucketKey{e, buckets[i].Key}], now); !ok {
			return i + 1, wait
		}
	}
	return 0, 0
}

func (s *shard) spend(e *endpoint, buckets []policy.Bucket, now int64) {
	for i := range buckets {
		key := bucketKey{e, buckets[i].Key}
		stored, known := s.buckets[key]
		if !known {
			s.makeRoom(now)
		}
		next, _, _ := buckets[i].Limit.Take(stored, now)
		s.buckets[key] = next
	}
}

// makeRoom forgets buckets that are idle, which costs nothing, and at the cap the one of a few that is nearest to it.
func (s *shard) makeRoom(now int64) {
	if len(s.buckets) >= s.sweepAt || len(s.buckets) >= s.maxBuckets {
		for key, stored := range s.buckets {
			if stored <= now {
				delete(s.buckets, key)
			}
		}
		s.sweepAt = max(minSweep, 2*len(s.buckets))
	}
	if len(s.buckets) < s.maxBuckets {
		return
	}
	const sample = 8
	var nearest bucketKey
	var soonest int64
	n := 0
	for key, stored := range s.buckets {
		if n == 0 || stored < soonest {
			nearest, soonest = key, stored
		}
		if n++; n == sample {
			break
		}
	}
	delete(s.buckets, nearest)
	s.evicted[kindRate]++
}

// record remembers a delivery under all of its messages. A live record is never forgotten for a new one.
func (e *endpoint) record(t *policy.Take, now int64, most int) (policy.Token, error) {
	added := 0
	for i := range t.Messages {
		if e.deliveries[t.Messages[i]] == nil {
			added++
		}
	}
	if len(e.deliveries)+added > most {
		e.forgetDeliveries(now, len(e.expiries.items))
	}
	if len(e.deliveries)+added > most {
		return policy.Token{}, policy.ErrStoreFull
	}
	r := &record{expires: now + int64(t.Window), made: identity(t)}
	if t.Reservation > 0 {
		rand.Read(r.token[:]) // never fails: crypto/rand ends the process instead
		r.open = now + int64(t.Reservation)
		e.reservations[r.token] = r
	}
	for i := range t.Messages {
		id := t.Messages[i]
		if old := e.deliveries[id]; old != nil {
			r.releases = max(r.releases, old.releases)
			delete(e.reservations, old.token)
		}
		e.deliveries[id] = r
		e.expiries.push(r.expires, id)
	}
	return r.token, nil
}

// identity tells the Takes of one endpoint apart.
func identity(t *policy.Take) uint64 {
	return maphash.String(identitySeed, t.Stream) ^ uint64(t.Time.UnixNano())
}

var identitySeed = maphash.MakeSeed()

// settle ends a reservation.
func (e *endpoint) settle(r *record, now int64, confirmed bool) {
	delete(e.reservations, r.token)
	r.token = policy.Token{}
	if confirmed || r.releases >= policy.MaxReleases {
		r.open = 0
		return
	}
	r.releases++
	r.open = released
}

// Release implements policy.Store.
func (m *Memory) Release(_ context.Context, t *policy.Take) error {
	s := m.shard(t.Endpoint)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoint(t.Endpoint)
	if t.Stream != "" {
		delete(e.streams, m.streamKey(t))
	}
	for i := range t.Messages {
		r := e.deliveries[t.Messages[i]]
		if r == nil || r.made != identity(t) {
			continue
		}
		delete(e.reservations, r.token)
		r.token = policy.Token{}
		r.open = released
		if r.releases == 0 {
			delete(e.deliveries, t.Messages[i])
		}
	}
	return nil
}

// Settle implements policy.Store.
func (m *Memory) Settle(_ context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error) {
	s := m.shard(endpoint)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoints[endpoint]
	if e == nil {
		return false, nil
	}
	r := e.reservations[token]
	if r == nil || token == (policy.Token{}) || now.UnixNano() >= r.open {
		return false, nil
	}
	e.settle(r, now.UnixNano(), confirmed)
	return true, nil
}

// forget drops what has expired, a bounded number of keys at a time.
func (e *endpoint) forget(now int64) {
	const most = 16
	e.forgetDeliveries(now, most)
	for range most {
		end, key, ok := e.streamEnds.first()
		if !ok || now < end {
			break
		}
		e.streamEnds.pop()
		if known, ok := e.streams[key]; ok && now >= known.expires {
			delete(e.streams, key)
		}
	}
}

func (e *endpoint) forgetDeliveries(now int64, most int) {
	for range most {
		end, id, ok := e.expiries.first()
		if !ok || now < end {
			return
		}
		e.expiries.pop()
		if r := e.deliveries[id]; r != nil && now >= r.expires {
			delete(e.deliveries, id)
			delete(e.reservations, r.token)
		}
	}
}

// dropStream forgets the oldest stream.
func (e *endpoint) dropStream() {
	for len(e.streamEnds.items) > 0 {
		end, key, _ := e.streamEnds.first()
		e.streamEnds.pop()
		if known, ok := e.streams[key]; ok && known.expires == end {
			delete(e.streams, key)
			return
		}
	}
	clear(e.streams)
}
