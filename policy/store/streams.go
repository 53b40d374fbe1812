package store

import (
	"slices"

	"github.com/hookauthz/hookauthz/policy"
)

// streams remembers what the streams of one endpoint got, for policy.StreamWindow, in the order in which they came.
type streams struct {
	most    int
	answers map[uint64]answer
	takers  map[uint64][]uint64 // of an answer that more than one Take was given and has not released; the latest last
	order   []passed            // order[first:] are remembered, or were until they were released
	first   int
	evicted uint64
}

// answer is what the first Take of a stream got.
type answer struct {
	by        uint64 // the identity of the latest Take that was given it and has not released it
	expires   int64
	token     policy.Token
	duplicate bool
}

type passed struct {
	stream  uint64
	expires int64
}

func newStreams(most int) streams {
	return streams{most: most, answers: make(map[uint64]answer), takers: make(map[uint64][]uint64)}
}

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
	s.forget(stream) // one that has expired
	s.answers[stream] = a
	s.order = append(s.order, passed{stream, a.expires})
}

// maxTakers is how many Takes of a stream are told apart. What more were given stays, whoever releases it.
const maxTakers = 8

// join notes that another Take was given the answer. It is the latest from then on, in the place of the one before; false: it was given it before.
func (s *streams) join(stream, by uint64) (before, latest uint64, joined bool) {
	a, all := s.answers[stream], s.takers[stream]
	if all == nil {
		all = []uint64{a.by}
	}
	if slices.Contains(all, by) || slices.Contains(all, nobody) {
		return 0, 0, false
	}
	if len(all) == maxTakers {
		by = nobody
	}
	before, a.by = a.by, by
	s.answers[stream], s.takers[stream] = a, append(all, by)
	return before, by, true
}

// leave notes that a Take has released the answer. Where others hold it, it stays, and the latest of them is its heir; else it is forgotten.
func (s *streams) leave(stream, by uint64) (heir uint64, stays bool) {
	a, ok := s.answers[stream]
	all := s.takers[stream]
	if all == nil {
		all = []uint64{a.by}
	}
	i := slices.Index(all, by)
	if !ok || i < 0 {
		return 0, false
	}
	if len(all) == 1 {
		s.forget(stream)
		return 0, false
	}
	all = slices.Delete(all, i, i+1)
	a.by = all[len(all)-1]
	s.answers[stream], s.takers[stream] = a, all
	return a.by, true
}

func (s *streams) forget(stream uint64) {
	delete(s.answers, stream)
	delete(s.takers, stream)
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
	s.forget(p.stream)
	return true
}
