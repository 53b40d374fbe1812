package store

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hookauthz/hookauthz/policy"
)

// journal is the deliveries that the shared store has not been told of, oldest first.
type journal struct {
	most  int
	count atomic.Int64 // of takes, and of those that each has in hand

	dropped atomic.Uint64 // for want of room, ever

	mu    sync.Mutex
	takes []*entry
	lost  int
	turn  sync.Mutex // one each at a time
}

// entry is a delivery, and the token of its reservation if it has one.
type entry struct {
	take  *policy.Take
	token policy.Token
}

// verdict is what became of something that the store was to be told.
type verdict int

const (
	open verdict = iota // to be told again
	kept                // told
	gone                // it no longer stands
)

func (j *journal) len() int { return int(j.count.Load()) }

func (j *journal) add(t *entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.takes) >= j.most {
		j.takes[0] = nil
		j.takes = j.takes[1:]
		j.lost++
		j.dropped.Add(1)
		j.count.Add(-1)
	}
	j.takes = append(j.takes, t)
	j.count.Add(1)
}

// forgotten is how many did not fit since it was asked last.
func (j *journal) forgotten() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.lost
	j.lost = 0
	return n
}

// abreast is how many are written back at once.
const abreast = 32

// each takes every delivery out, and puts those back that stay open. After an error it stops and puts all back that were not dealt with.
func (j *journal) each(do func(*entry) (verdict, error)) (written int, err error) {
	j.turn.Lock()
	defer j.turn.Unlock()
	j.mu.Lock()
	hand := j.takes
	j.takes = nil
	j.mu.Unlock()

	var back []*entry
	for len(hand) > 0 && err == nil {
		some := hand[:min(abreast, len(hand))]
		verdicts, errs := make([]verdict, len(some)), make([]error, len(some))
		var wait sync.WaitGroup
		for i, t := range some {
			wait.Go(func() { verdicts[i], errs[i] = do(t) })
		}
		wait.Wait()
		for i, v := range verdicts {
			switch {
			case v == open || errs[i] != nil:
				back = append(back, some[i])
			case v == kept:
				written++
			}
			if err == nil {
				err = errs[i]
			}
		}
		hand = hand[len(some):]
	}
	back = append(back, hand...)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.takes = slices.Concat(back, j.takes)
	if over := len(j.takes) - j.most; over > 0 {
		j.takes, j.lost = j.takes[over:], j.lost+over
		j.dropped.Add(uint64(over))
	}
	j.count.Store(int64(len(j.takes)))
	return written, err
}

// pending is what the store is to be told, oldest first.
type pending[T any] struct {
	most int
	mu   sync.Mutex
	all  []*T
}

func (p *pending[T]) add(t *T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= p.most {
		p.all = p.all[1:]
	}
	p.all = append(p.all, t)
}

// each does all, some abreast, and what is added meanwhile. What stays open, what fails and what was not begun then is for the next time.
func (p *pending[T]) each(do func(*T) (verdict, error)) (err error) {
	var back []*T
	for err == nil {
		p.mu.Lock()
		some := slices.Clone(p.all[:min(abreast, len(p.all))])
		if p.all = p.all[len(some):]; len(p.all) == 0 {
			p.all = nil
		}
		p.mu.Unlock()
		if len(some) == 0 {
			break
		}
		verdicts, errs := make([]verdict, len(some)), make([]error, len(some))
		var wait sync.WaitGroup
		for i, t := range some {
			wait.Go(func() { verdicts[i], errs[i] = do(t) })
		}
		wait.Wait()
		for i, t := range some {
			if verdicts[i] == open || errs[i] != nil {
				back = append(back, t)
			}
		}
		err = errors.Join(errs...)
	}
	if len(back) > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all = slices.Concat(back, p.all)
		p.all = p.all[max(0, len(p.all)-p.most):]
	}
	return err
}
