package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// checks measures calls of Check, so many at once, of which every one must be allowed, or every one denied.
func (b *bench) checks(of lazy[*server], d delivery, atOnce int, allowed bool) measurement {
	template := once(func(context.Context) (*message, error) { return newMessage(d, asCheck) })
	return func(ctx context.Context) (sample, error) {
		s, err := of(ctx)
		if err != nil {
			return sample{}, err
		}
		m, err := template(ctx)
		if err != nil {
			return sample{}, err
		}
		return b.watched(ctx, s, s.checkers(m, atOnce, allowed), b.warmUp(), allowed)
	}
}

// warmUp is how long the load is on before it is measured.
func (b *bench) warmUp() time.Duration { return b.period / 10 }

// watched drives callers of one server and looks at what it counts meanwhile.
func (b *bench) watched(ctx context.Context, s *server, callers []caller, before time.Duration, logged bool) (sample, error) {
	// What reading the metrics costs itself is told by reading them twice.
	var counts [3]map[string]float64
	var err error
	for i := range 2 {
		if counts[i], err = s.metrics(ctx); err != nil {
			return sample{}, err
		}
	}
	if err := forgetPeak(s.pid()); err != nil {
		return sample{}, err
	}
	lines := s.lines.Load()
	l, err := drive(ctx, callers, before, b.period, s.process)
	if err != nil {
		return sample{}, err
	}
	_, peak, err := memory(s.pid())
	if err != nil {
		return sample{}, err
	}
	if counts[2], err = s.metrics(ctx); err != nil {
		return sample{}, err
	}
	if s.logs && logged {
		if err := s.wait(ctx, func() error { return logComplete(s.lines.Load()-lines, l.total) }); err != nil {
			return sample{}, err
		}
	}
	grown := func(name string) float64 {
		return counts[2][name] - counts[1][name] - (counts[1][name] - counts[0][name])
	}
	return sample{
		cpu:         l.cpu[0] / time.Duration(l.all()),
		own:         l.own / time.Duration(l.all()),
		rate:        l.rate(),
		allocations: grown("go_memstats_mallocs_total") / float64(l.total),
		peak:        peak,
		storeless:   grown("hookauthz_store_errors_total") / float64(l.total),
		latencies:   l.latencies,
		calls:       l.calls,
	}, nil
}

// logComplete holds the log to what is claimed: a line for every decision.
func logComplete(lines, decisions int64) error {
	if lines < decisions {
		return fmt.Errorf("%d lines in the log for %d decisions", lines, decisions)
	}
	return nil
}

// all is how many calls ended within the period.
func (l *load) all() (n int64) {
	for _, c := range l.calls {
		n += c
	}
	return n
}

func (l *load) rate() float64 { return float64(l.calls[asWanted]) / l.elapsed.Seconds() }

// requests measures deliveries through a listener of Envoy.
func (b *bench) requests(proxy lazy[*envoy], authz lazy[*server], listener string, size int) measurement {
	template := once(func(context.Context) (*message, error) { return newMessage(delivery{size: size}, asHTTP) })
	return func(ctx context.Context) (sample, error) {
		e, err := proxy(ctx)
		if err != nil {
			return sample{}, err
		}
		watch := []*process{e.process}
		if authz != nil {
			s, err := authz(ctx)
			if err != nil {
				return sample{}, err
			}
			watch = append(watch, s.process)
		}
		m, err := template(ctx)
		if err != nil {
			return sample{}, err
		}
		callers, hangUp, err := senders(e.listeners[listener], m, 2*b.concurrency)
		if err != nil {
			return sample{}, err
		}
		defer hangUp()
		l, err := drive(ctx, callers, b.warmUp(), b.period, watch...)
		if err != nil {
			return sample{}, err
		}
		s := sample{cpu: l.cpu[0] / time.Duration(l.all()), rate: l.rate(), latencies: l.latencies, calls: l.calls}
		if authz != nil {
			s.authz = l.cpu[1] / time.Duration(l.all())
		}
		return s, nil
	}
}

// bodies measures the memory of a new server that many large bodies reach at once.
func (b *bench) bodies(ctx context.Context) (sample, error) {
	const atOnce = 64
	s, err := b.startHookauthz(ctx, hookauthz{policies: 1, spec: fullSpec})
	if err != nil {
		return sample{}, err
	}
	defer b.endServer(s)
	m, err := newMessage(delivery{size: large}, asCheck)
	if err != nil {
		return sample{}, err
	}
	return b.watched(ctx, s, s.checkers(m, atOnce, true), b.warmUp(), true)
}

// reload measures the CPU time from the change of one policy file until the server has come to rest again.
func (b *bench) reload(of lazy[*server]) measurement {
	return func(ctx context.Context) (sample, error) {
		s, err := of(ctx)
		if err != nil {
			return sample{}, err
		}
		if err := forgetPeak(s.pid()); err != nil {
			return sample{}, err
		}
		before, err := cpuTime(s.pid())
		if err != nil {
			return sample{}, err
		}
		s.forgetWords()
		b.reloads++
		text := strings.Replace(policyText(0, policiesPerFile, fullSpec), "1000000/second", fmt.Sprintf("%d/second", 1000000-b.reloads), 1)
		begin := time.Now()
		if err := replaceFile(s.policyFile(), text); err != nil {
			return sample{}, err
		}
		if err := s.says(ctx, `"msg":"policies reloaded"`); err != nil {
			return sample{}, err
		}
		took := time.Since(begin)
		after, err := s.atRest(ctx)
		if err != nil {
			return sample{}, err
		}
		_, peak, err := memory(s.pid())
		return sample{cpu: after - before, latencies: []time.Duration{took}, peak: peak}, err
	}
}

func replaceFile(path, text string) error {
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// atRest waits until the process works no more, its garbage collector included, and returns the CPU time that it has used so far.
func (p *process) atRest(ctx context.Context) (time.Duration, error) {
	const little = 2 * time.Millisecond
	last := time.Duration(0)
	for {
		now, err := cpuTime(p.pid())
		if err != nil || now-last < little {
			return now, err
		}
		last = now
		if err := pause(ctx, 100*time.Millisecond, nil); err != nil {
			return 0, err
		}
	}
}
