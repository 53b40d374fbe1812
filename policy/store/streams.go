package store

import "github.com/hookauthz/hookauthz/policy"

// streams remembers what the streams of one endpoint got, for policy.StreamWindow, in the order in which they came.
type streams struct {
	most    int
	answers map[uint64]answer
	order   []passed // order[first:] are remembered, or were until they were released
	first   int
	evicted uint64
}

// answer is what the first Take of a stream got.
type answer struct {
	by        uint64 // the identity of the Take that may release it
	expires   int64
	token     policy.Token
	duplicate bool
}

type passed struct {
	stream  uint64
	expires int64
}

func newStreams(most int) streams { return streams{most: most, answers: make(map[uint64]answer)} }

func (s *streams) find(stream uint64, now int64) (answer, bool) {
	a, ok := s.answers[stream]
	return a, ok && now < a.expires
}

func (s *streams) add(stream uint64, a answer, now int64) {
	if len(s.order)-s.first >= s.most {
		if s.forgetFirst() {
			s.evicted++
		}
	}
	a.expires = now + int64(policy.StreamWindow)
	s.answers[stream] = a
	s.order = append(s.order, passed{stream, a.expires})
}

// handOver makes another Take the one that may release the answer.
func (s *streams) handOver(stream uint64, to uint64) {
	a := s.answers[stream]
	a.by = to
	s.answers[stream] = a
}

// release forgets the answer that this Take got.
func (s *streams) release(stream, by uint64) {
	if a, ok := s.answers[stream]; ok && a.by == by {
		delete(s.answers, stream)
	}
}

// collect forgets some of what has expired.
func (s *streams) collect(now int64) {
	const most = 4 // more than a Take adds, so that it keeps up
	for range most {
		if s.first == len(s.order) || now < s.order[s.first].expires {
			return
		}
		s.forgetFirst()
	}
}

// forgetFirst forgets the stream that came first, and reports whether it was still remembered.
func (s *streams) forgetFirst() bool {
	p := s.order[s.first]
	s.first++
	if s.first > 64 && s.first > len(s.order)/2 {
		s.order = append(s.order[:0], s.order[s.first:]...)
		s.first = 0
	}
	a, ok := s.answers[p.stream]
	if !ok || a.expires != p.expires {
		return false // released, or taken again since
	}
	delete(s.answers, p.stream)
	return true
}
