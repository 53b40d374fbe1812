package main

import (
	"context"
	"fmt"
	"os"
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
	own       time.Duration   // of this process within the period
}

// drive has all callers call again and again, and measures a period in the middle: after a time in which connections, caches and queues have
// become what they are then, and while nothing starts or ends.
func drive(ctx context.Context, callers []caller, before, period time.Duration, processes ...*process) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, before+4*period+30*time.Second)
	defer cancel()
	r := calls{failure: make(chan error, len(callers)), latencies: make([][]time.Duration, len(callers))}
	var running sync.WaitGroup
	for i, call := range callers {
		running.Go(func() { r.repeat(ctx, i, call) })
	}
	l, err := r.measure(ctx, before, period, processes)
	r.ended.Store(true)
	running.Wait()
	select {
	case late := <-r.failure:
		err = late
	default:
	}
	if err != nil {
		return load{}, err
	}
	for o := range r.counted {
		l.calls[o] = r.counted[o].Load()
	}
	l.total, l.latencies = r.total.Load(), slices.Concat(r.latencies...)
	slices.Sort(l.latencies)
	return l, nil
}

// calls is what callers of one drive share.
type calls struct {
	measuring, ended atomic.Bool
	total            atomic.Int64
	counted          [outcomes]atomic.Int64
	latencies        [][]time.Duration // of each caller
	failure          chan error        // with room for all callers
}

// repeat is one caller at work.
func (r *calls) repeat(ctx context.Context, number int, call caller) {
	for !r.ended.Load() {
		begin := time.Now()
		o, err := call(ctx)
		if err != nil {
			r.failure <- err
			return
		}
		r.total.Add(1)
		if !r.measuring.Load() {
			continue
		}
		r.counted[o].Add(1)
		if o == asWanted {
			r.latencies[number] = append(r.latencies[number], time.Since(begin))
		}
	}
}

// measure lets a period pass, and more where nothing has ended as wanted by then.
func (r *calls) measure(ctx context.Context, before, period time.Duration, processes []*process) (load, error) {
	if err := pause(ctx, before, r.failure); err != nil {
		return load{}, err
	}
	first, err := cpuTimes(processes)
	if err != nil {
		return load{}, err
	}
	begin := time.Now()
	r.measuring.Store(true)
	for time.Since(begin) < period || r.counted[asWanted].Load() == 0 {
		if err := pause(ctx, max(period-time.Since(begin), time.Millisecond), r.failure); err != nil {
			return load{}, err
		}
	}
	r.measuring.Store(false)
	l := load{elapsed: time.Since(begin)}
	last, err := cpuTimes(processes)
	for i := range last {
		last[i] -= first[i]
	}
	if err == nil {
		l.cpu, l.own = last[:len(processes)], last[len(processes)]
	}
	return l, err
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

// cpuTimes are those of some processes, and of this one behind them.
func cpuTimes(processes []*process) ([]time.Duration, error) {
	var times []time.Duration
	for _, p := range processes {
		t, err := cpuTime(p.pid())
		if err != nil {
			return nil, err
		}
		times = append(times, t)
	}
	own, err := cpuTime(os.Getpid())
	return append(times, own), err
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
