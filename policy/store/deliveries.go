package store

import (
	"crypto/rand"
	"math"
	"slices"
	"time"

	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/signature"
)

// deliveries is the replay memory of one endpoint. A million of them is common, so they hold no pointers: the garbage collector has nothing to follow.
//
// A delivery is a chain of records, one for each of its messages. The first is its head: it holds the state, the index leads from
// every message to it, and it alone stands in the queue, which is ordered by what happens next: the end of a reservation, or of the window.
type deliveries struct {
	most   int
	index  map[signature.MessageID]place
	slab   slab
	queue  []place // a binary heap of heads by due
	tokens map[policy.Token]place
	held   map[place]policy.Token // the other way round
}

// place is where a record stands in the slab. Nothing stands at 0.
type place uint32

type record struct {
	id      signature.MessageID
	next    place // the delivery's next message, or the next free record
	queued  int32 // where the head stands in the queue
	expires int64 // Unix nanoseconds, like all moments here
	due     int64 // end of the reservation while it is open, else expires
	by      uint64
	state
	releases uint8
}

// state of a delivery.
type state uint8

const (
	confirmed state = iota
	reserved
	released // it may come again
)

func newDeliveries(most int) deliveries {
	return deliveries{
		most:   most,
		index:  make(map[signature.MessageID]place),
		tokens: make(map[policy.Token]place),
		held:   make(map[place]policy.Token),
	}
}

// lookUp is the delivery that stands against the first of the messages that has one. A reservation that has ended without a word is released on the way.
func (d *deliveries) lookUp(messages []signature.MessageID, now int64) *record {
	for i := range messages {
		p := d.index[messages[i]]
		if p == 0 {
			continue
		}
		r := d.slab.at(p)
		if r.state == reserved && now >= r.due {
			d.end(p, false)
		}
		if now < r.expires && r.state != released {
			return r
		}
	}
	return nil
}

// record remembers a delivery for which lookUp found nothing, under all of its messages. A live delivery is never forgotten for a new one.
// named is the token of its reservation; zero: a new one.
func (d *deliveries) record(t *policy.Take, now int64, by uint64, named policy.Token) (token policy.Token, err error) {
	added, releases := 0, uint8(0)
	for i, id := range t.Messages {
		switch p := d.index[id]; {
		case p != 0 && now < d.slab.at(p).expires:
			releases = max(releases, d.slab.at(p).releases)
		case p != 0:
			d.remove(p)
			added++
		case !slices.Contains(t.Messages[:i], id):
			added++
		}
	}
	if !d.makeRoom(added, now) {
		return token, policy.ErrStoreFull
	}
	for _, id := range t.Messages {
		if p := d.index[id]; p != 0 {
			d.remove(p) // released
		}
	}
	head := place(0)
	for _, id := range t.Messages {
		if d.index[id] != 0 {
			continue // two secrets are alike
		}
		p := d.slab.take()
		r := d.slab.at(p)
		*r = record{id: id}
		if head == 0 {
			head = p
		} else {
			first := d.slab.at(head)
			r.next, first.next = first.next, p
		}
		d.index[id] = head
	}
	r := d.slab.at(head)
	r.expires = after(now, max(t.Window, t.Reservation))
	r.due, r.by, r.releases = r.expires, by, releases
	if t.Reservation > 0 {
		if token = named; token == (policy.Token{}) {
			rand.Read(token[:]) // never fails: crypto/rand ends the process instead
		}
		r.state, r.due = reserved, after(now, t.Reservation)
		d.tokens[token], d.held[head] = head, token
	}
	r.queued = int32(len(d.queue))
	d.queue = append(d.queue, head)
	d.sift(head)
	return token, nil
}

// after is a moment after now that fits an int64.
func after(now int64, d time.Duration) int64 {
	if now > 0 && int64(d) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(d)
}

// makeRoom forgets what has expired as far as added messages need it.
func (d *deliveries) makeRoom(added int, now int64) bool {
	for len(d.index)+added > d.most {
		if !d.step(now) {
			return false
		}
	}
	return true
}

// collect forgets some of what has expired.
func (d *deliveries) collect(now int64) {
	const most = 4 // more than one delivery adds, so that it keeps up
	for range most {
		if !d.step(now) {
			return
		}
	}
}

// step does what is due next, if it is due.
func (d *deliveries) step(now int64) bool {
	if len(d.queue) == 0 {
		return false
	}
	p := d.queue[0]
	r := d.slab.at(p)
	switch {
	case now < r.due:
		return false
	case r.state == reserved:
		d.end(p, false)
	default:
		d.remove(p)
	}
	return true
}

// settle ends the open reservation of this token.
func (d *deliveries) settle(token policy.Token, now int64, confirm bool) bool {
	p := d.tokens[token]
	if p == 0 || now >= d.slab.at(p).due {
		return false
	}
	d.end(p, confirm)
	return true
}

// end ends a reservation. Released for the last time, the delivery counts as confirmed.
func (d *deliveries) end(p place, confirm bool) {
	r := d.slab.at(p)
	if !confirm && r.releases < policy.MaxReleases {
		r.releases++
		d.become(p, released)
		return
	}
	d.become(p, confirmed)
}

// become ends a reservation, if there is one, with this state, which no Release undoes.
func (d *deliveries) become(p place, s state) {
	d.dropToken(p)
	r := d.slab.at(p)
	r.state, r.due, r.by = s, r.expires, nobody
	d.sift(p)
}

// release undoes the delivery if it was recorded by this Take. What was released before keeps its count.
func (d *deliveries) release(messages []signature.MessageID, by uint64) {
	for i := range messages {
		p := d.index[messages[i]]
		switch {
		case p == 0 || d.slab.at(p).by != by:
		case d.slab.at(p).releases > 0:
			d.become(p, released)
		default:
			d.remove(p)
		}
	}
}

// handOver makes another Take the one that recorded the delivery.
func (d *deliveries) handOver(messages []signature.MessageID, from, to uint64) {
	for i := range messages {
		if p := d.index[messages[i]]; p != 0 && d.slab.at(p).by == from {
			d.slab.at(p).by = to
		}
	}
}

func (d *deliveries) dropToken(p place) {
	if token, ok := d.held[p]; ok {
		delete(d.tokens, token)
		delete(d.held, p)
	}
}

// remove forgets a delivery with all of its messages.
func (d *deliveries) remove(head place) {
	d.dropToken(head)
	d.unqueue(head)
	for p := head; p != 0; {
		r := d.slab.at(p)
		next := r.next
		delete(d.index, r.id)
		d.slab.put(p)
		p = next
	}
	if len(d.index) == 0 && len(d.slab.chunks) > 64 {
		*d = newDeliveries(d.most) // maps do not shrink
	}
}

// sift moves a head to its place in the queue.
func (d *deliveries) sift(p place) {
	i := int(d.slab.at(p).queued)
	for i > 0 && d.due(i) < d.due((i-1)/2) {
		d.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		soonest := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(d.queue); child++ {
			if d.due(child) < d.due(soonest) {
				soonest = child
			}
		}
		if soonest == i {
			return
		}
		d.swap(i, soonest)
		i = soonest
	}
}

func (d *deliveries) due(i int) int64 { return d.slab.at(d.queue[i]).due }

func (d *deliveries) swap(i, j int) {
	d.queue[i], d.queue[j] = d.queue[j], d.queue[i]
	d.slab.at(d.queue[i]).queued, d.slab.at(d.queue[j]).queued = int32(i), int32(j)
}

func (d *deliveries) unqueue(p place) {
	i, last := int(d.slab.at(p).queued), len(d.queue)-1
	if i != last {
		d.swap(i, last)
	}
	d.queue = d.queue[:last]
	if i != last {
		d.sift(d.queue[i])
	}
}

// slab holds records in chunks, so that growing never copies them, and takes freed ones again.
type slab struct {
	chunks []*[chunkLen]record
	free   place
	fresh  place // the next that was never used
}

const chunkLen = 8192 / 56 // the records that fit what the allocator gives for 8 KiB

func (s *slab) at(p place) *record { return &s.chunks[p/chunkLen][p%chunkLen] }

func (s *slab) take() place {
	if p := s.free; p != 0 {
		s.free = s.at(p).next
		return p
	}
	s.fresh++ // from 1 on
	if int(s.fresh/chunkLen) == len(s.chunks) {
		s.chunks = append(s.chunks, new([chunkLen]record))
	}
	return s.fresh
}

func (s *slab) put(p place) {
	*s.at(p) = record{next: s.free}
	s.free = p
}
