// Package store holds the engines that keep rate and replay state: in this process, or shared by many.
package store

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// MemoryConfig bounds a Memory. Every bound is for one endpoint: a noisy one cannot crowd out another. Zero values take the defaults.
type MemoryConfig struct {
	// MaxDeliveries is the most messages that are remembered. Beyond it Take returns policy.ErrStoreFull: a live one is never forgotten for
	// another, because whoever could make it forgotten could replay it. Default: 1,048,576, 110 MB.
	MaxDeliveries int
	// MaxBuckets is the most rate buckets. Beyond it the one of a few that is nearest to being idle is forgotten. Default: 262,144, 19 MB.
	MaxBuckets int
	// MaxStreams is the most streams that are remembered to tell Envoy's retries. Beyond it the oldest is forgotten. Default: 65,536, 9 MB.
	MaxStreams int
}

// Memory is a Store in this process. It needs no goroutine: what has expired is forgotten, a few keys at a time, as deliveries come.
type Memory struct {
	config    MemoryConfig
	seed      maphash.Seed
	endpoints sync.Map // name -> *endpoint; the names are those of policy files
}

// NewMemory makes an empty Memory.
func NewMemory(c MemoryConfig) *Memory {
	if c.MaxDeliveries <= 0 {
		c.MaxDeliveries = 1 << 20
	}
	if c.MaxBuckets <= 0 {
		c.MaxBuckets = 1 << 18
	}
	if c.MaxStreams <= 0 {
		c.MaxStreams = 1 << 16
	}
	return &Memory{config: c, seed: maphash.MakeSeed()}
}

// endpoint is the memory of one endpoint. One mutex makes a Take all or nothing.
type endpoint struct {
	mu         sync.Mutex
	deliveries deliveries
	buckets    buckets
	streams    streams
}

func (m *Memory) endpoint(name string) *endpoint {
	if e, ok := m.endpoints.Load(name); ok {
		return e.(*endpoint)
	}
	e, _ := m.endpoints.LoadOrStore(name, &endpoint{
		deliveries: newDeliveries(m.config.MaxDeliveries),
		buckets:    newBuckets(m.config.MaxBuckets),
		streams:    newStreams(m.config.MaxStreams),
	})
	return e.(*endpoint)
}

// known is the endpoint, or nil where nothing was ever taken for it.
func (m *Memory) known(name string) *endpoint {
	if e, ok := m.endpoints.Load(name); ok {
		return e.(*endpoint)
	}
	return nil
}

// Take implements policy.Store.
func (m *Memory) Take(ctx context.Context, t *policy.Take) (policy.Taken, error) {
	return m.TakeAs(ctx, t, policy.Token{})
}

// TakeAs is Take, with a token for the reservation that it makes.
func (m *Memory) TakeAs(_ context.Context, t *policy.Take, token policy.Token) (policy.Taken, error) {
	now, by := t.Time.UnixNano(), m.identity(t)
	e := m.endpoint(t.Endpoint)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deliveries.collect(now)
	e.streams.collect(now)

	var stream uint64
	if t.Stream != "" {
		stream = m.streamKey(t)
		if first, ok := e.streams.find(stream, now); ok {
			if !t.Peek {
				// The first check of this stream has been given up by Envoy and may yet release its Take. But this retry may be let through,
				// and what is let through must stay remembered, until all that were told so have released it. Which came first here does not say
				// which Envoy has given up.
				if before, latest, joined := e.streams.join(stream, by); joined {
					e.deliveries.handOver(t.Messages, before, latest)
				}
			}
			return policy.Taken{Retry: true, Duplicate: first.duplicate, Token: first.token}, nil
		}
	}
	var taken policy.Taken
	if r := e.deliveries.lookUp(t.Messages, now); r != nil {
		taken.Duplicate = true
		if r.state == reserved {
			taken.InFlight, taken.RetryAfter = true, time.Duration(r.due-now)
			return taken, nil
		}
		if !t.Tag {
			return taken, nil
		}
	}
	if taken.Limited, taken.RetryAfter = e.buckets.test(t.Buckets, now); taken.Limited > 0 || t.Peek {
		return taken, nil
	}
	if !taken.Duplicate && len(t.Messages) > 0 {
		token, err := e.deliveries.record(t, now, by, token)
		if err != nil {
			return policy.Taken{}, err
		}
		taken.Token = token
	}
	e.buckets.spend(t.Buckets, now)
	if t.Stream != "" {
		e.streams.add(stream, answer{by: by, token: taken.Token, duplicate: taken.Duplicate}, now)
	}
	return taken, nil
}

// nobody is the identity of no Take.
const nobody = 0

// identity tells the Takes of one endpoint apart. It is never nobody.
func (m *Memory) identity(t *policy.Take) uint64 {
	return maphash.Comparable(m.seed, taker{t.Stream, t.Time.UnixNano()}) | 1
}

type taker struct {
	stream string
	time   int64
}

// streamKey names the stream of a Take: the same stream with another message is another one.
func (m *Memory) streamKey(t *policy.Take) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	h.WriteByte(byte(len(t.Messages))) // tells where the messages end
	for i := range t.Messages {
		h.Write(t.Messages[i][:])
	}
	h.WriteString(t.Stream)
	return h.Sum64()
}

// Release implements policy.Store.
func (m *Memory) Release(_ context.Context, t *policy.Take) error {
	e := m.known(t.Endpoint)
	if e == nil {
		return nil
	}
	by := m.identity(t)
	e.mu.Lock()
	defer e.mu.Unlock()
	if t.Stream != "" {
		if heir, stays := e.streams.leave(m.streamKey(t), by); stays {
			e.deliveries.handOver(t.Messages, by, heir)
			return nil
		}
	}
	e.deliveries.release(t.Messages, by)
	return nil
}

// Settle implements policy.Store.
func (m *Memory) Settle(_ context.Context, now time.Time, endpoint string, token policy.Token, confirmed bool) (bool, error) {
	e := m.known(endpoint)
	if e == nil {
		return false, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.deliveries.settle(token, now.UnixNano(), confirmed), nil
}
