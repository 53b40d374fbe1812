package store

// Stats is how many keys of one kind there are, and how many were forgotten before their time because there was no room.
type Stats struct {
	Kind      string // rate, replay, stream or reservation; journal is of a Guard
	Keys      int
	Evictions uint64
}

// Stats counts the keys of all endpoints by kind.
func (m *Memory) Stats() []Stats {
	rate, replay, stream, reservation := Stats{Kind: "rate"}, Stats{Kind: "replay"}, Stats{Kind: "stream"}, Stats{Kind: "reservation"}
	m.endpoints.Range(func(_, value any) bool {
		e := value.(*endpoint)
		e.mu.Lock()
		defer e.mu.Unlock()
		rate.Keys += len(e.buckets.all)
		rate.Evictions += e.buckets.evicted
		replay.Keys += len(e.deliveries.index)
		stream.Keys += len(e.streams.answers)
		stream.Evictions += e.streams.evicted
		reservation.Keys += len(e.deliveries.tokens)
		return true
	})
	return []Stats{rate, replay, stream, reservation}
}
