package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// caller sends one delivery and waits for what becomes of it. An error ends the measurement: something came out that may not.
type caller func(ctx context.Context) (outcome, error)

// outcome is what became of a delivery.
type outcome int

const (
	asWanted   outcome = iota // what the row is about: allowed, or denied
	turnedAway                // refused for the server's load
	late                      // not answered within the caller's deadline
	stopped                   // forged, and denied, among deliveries that are to be allowed
	misjudged                 // valid, and denied for another reason than load
	outcomes                  // how many there are
)

// load is what a run of callers came to.
type load struct {
	total     int64           // calls of all of the run
	calls     [outcomes]int64 // calls that ended within the period
	elapsed   time.Duration   // the period, or until the first call ended as wanted
	latencies []time.Duration // of those that ended as wanted, sorted
	cpu       []time.Duration // of each process within the period
}

// drive has all callers call again and again, and measures a period in the middle: after a time in which connections, caches and queues have
// become what they are then, and while nothing starts or ends.
func drive(ctx context.Context, callers []caller, before, period time.Duration, processes ...*process) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, before+4*period+30*time.Second)
	defer cancel()
	var (
		total     atomic.Int64
		counted   [outcomes]atomic.Int64
		measuring atomic.Bool
		ended     atomic.Bool
		failure   = make(chan error, len(callers))
		latencies = make([][]time.Duration, len(callers))
		running   sync.WaitGroup
	)
	for i, call := range callers {
		running.Go(func() {
			for !ended.Load() {
				begin := time.Now()
				o, err := call(ctx)
				if err != nil {
					failure <- err
					return
				}
				total.Add(1)
				if measuring.Load() {
					counted[o].Add(1)
					if o == asWanted {
						latencies[i] = append(latencies[i], time.Since(begin))
					}
				}
			}
		})
	}
	var l load
	err := pause(ctx, before, failure)
	first, e := cpuTimes(processes)
	begin := time.Now()
	measuring.Store(true)
	for err == nil && e == nil && (time.Since(begin) < period || counted[asWanted].Load() == 0) {
		err = pause(ctx, max(period-time.Since(begin), time.Millisecond), failure)
	}
	measuring.Store(false)
	l.elapsed = time.Since(begin)
	last, e2 := cpuTimes(processes)
	ended.Store(true)
	running.Wait()
	select {
	case late := <-failure:
		err = late
	default:
	}
	for _, e := range []error{err, e, e2} {
		if e != nil {
			return load{}, e
		}
	}
	for o := range counted {
		l.calls[o] = counted[o].Load()
	}
	l.total, l.latencies = total.Load(), slices.Concat(latencies...)
	slices.Sort(l.latencies)
	for i := range first {
		l.cpu = append(l.cpu, last[i]-first[i])
	}
	return l, nil
}

// pause waits for a time, or for what ends it early.
func pause(ctx context.Context, d time.Duration, failure <-chan error) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-failure:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func cpuTimes(processes []*process) ([]time.Duration, error) {
	var times []time.Duration
	for _, p := range processes {
		t, err := cpuTime(p.pid())
		if err != nil {
			return nil, err
		}
		times = append(times, t)
	}
	return times, nil
}

const checkMethod = authv3.Authorization_Check_FullMethodName

// checkers are callers of Check, so many at once, which want every delivery allowed, or every one denied.
func (s *server) checkers(m *message, count int, allowed bool) []caller {
	var callers []caller
	for i := range count {
		m, conn, v := m.clone(), s.conns[i%len(s.conns)], new(verdict)
		if m.delivery.policies > 0 {
			m.turn = i * m.delivery.policies / count
		}
		callers = append(callers, func(ctx context.Context) (outcome, error) {
			request, err := m.next()
			if err != nil {
				return 0, err
			}
			if err := conn.Invoke(ctx, checkMethod, request, v); err != nil {
				return 0, err
			}
			if v.allowed != allowed {
				return 0, fmt.Errorf("a delivery was %s; allowed must be %v", v, allowed)
			}
			return asWanted, nil
		})
	}
	return callers
}
