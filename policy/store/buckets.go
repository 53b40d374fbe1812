package store

import (
	"time"

	"github.com/hookauthz/hookauthz/policy"
)

// buckets is the rates of one endpoint. They stand in a dense slice, over which a hand goes round like a clock's: each new bucket has it look
// at a few others, so that idle ones are forgotten with bounded work however many there are.
type buckets struct {
	most    int
	index   map[policy.Key]int32
	all     []bucket
	hand    int
	evicted uint64
}

type bucket struct {
	key    policy.Key
	stored int64 // the stored moment of rate.Limit.Take
}

func newBuckets(most int) buckets { return buckets{most: most, index: make(map[policy.Key]int32)} }

// test is the number, from 1, of the first bucket that refuses, and when it would not. Nothing is spent.
func (b *buckets) test(wanted []policy.Bucket, now int64) (limited int, after time.Duration) {
	for i := range wanted {
		stored := int64(0)
		at, known := b.index[wanted[i].Key]
		if known {
			stored = b.all[at].stored
		}
		next, ok, wait := wanted[i].Limit.Take(stored, now)
		if ok {
			continue
		}
		if known {
			b.all[at].stored = next // differs only where the stored moment is from a clock that was wrong
		}
		return i + 1, wait
	}
	return 0, 0
}

// spend takes from buckets that were tested.
func (b *buckets) spend(wanted []policy.Bucket, now int64) {
	for i := range wanted {
		at, known := b.index[wanted[i].Key]
		if !known {
			b.makeRoom(now)
			at = int32(len(b.all))
			b.index[wanted[i].Key] = at
			b.all = append(b.all, bucket{key: wanted[i].Key})
		}
		b.all[at].stored, _, _ = wanted[i].Limit.Take(b.all[at].stored, now)
	}
}

// few is how many buckets are looked at for each that is new: more than one, so that idle ones do not pile up.
const few = 8

// makeRoom forgets the idle buckets among the next few, which costs nothing. Where there is no room even so it forgets the one that is nearest to being idle.
func (b *buckets) makeRoom(now int64) {
	for range min(few, len(b.all)) {
		if i := b.next(); b.all[i].stored <= now {
			b.forget(i)
			b.hand = i // another stands there now
		}
	}
	if len(b.all) < b.most {
		return
	}
	soonest := b.next()
	for range min(few, len(b.all)) - 1 {
		if i := b.next(); b.all[i].stored < b.all[soonest].stored {
			soonest = i
		}
	}
	b.forget(soonest)
	b.evicted++
}

// next is the place that the hand has come to.
func (b *buckets) next() int {
	if b.hand >= len(b.all) {
		b.hand = 0
	}
	b.hand++
	return b.hand - 1
}

// forget moves the last bucket to where this one was.
func (b *buckets) forget(i int) {
	last := len(b.all) - 1
	delete(b.index, b.all[i].key)
	if i != last {
		b.all[i] = b.all[last]
		b.index[b.all[i].key] = int32(i)
	}
	b.all = b.all[:last]
	if last == 0 && cap(b.all) > 1<<12 {
		b.all, b.index = nil, make(map[policy.Key]int32) // maps do not shrink
	}
}
