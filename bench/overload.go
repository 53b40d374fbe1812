package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errWronglyAllowed is the one thing that no load may cause.
var errWronglyAllowed = errors.New("a forged delivery was ALLOWED")

// forgedShare is how many of the deliveries under overload are forged: one in so many.
const forgedShare = 4

// crowd are callers that ask as Envoy does: each waits for its answer no longer than a deadline, and then asks for the next delivery. One that is
// turned away rests first, as the Retry-After of its answer asks senders to.
func (s *server) crowd(valid, forged *message, count int) []caller {
	var callers []caller
	for i := range count {
		messages := [2]*message{valid.clone(), forged.clone()}
		conn, v, turn := s.conns[i%len(s.conns)], new(verdict), i
		callers = append(callers, func(ctx context.Context) (outcome, error) {
			bad := 0
			if turn++; turn%forgedShare == 0 {
				bad = 1
			}
			request, err := messages[bad].next()
			if err != nil {
				return 0, err
			}
			o, err := s.ask(ctx, conn, request, v, bad == 1)
			if err == nil && (o == turnedAway || o == late) {
				err = pause(ctx, rest, nil)
			}
			return o, err
		})
	}
	return callers
}

// ask sends one delivery and says what became of it.
func (s *server) ask(ctx context.Context, conn *grpc.ClientConn, request []byte, v *verdict, forged bool) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	begin := time.Now()
	err := conn.Invoke(ctx, checkMethod, request, v)
	switch code := status.Code(err); {
	case code == codes.DeadlineExceeded:
		return late, nil
	case code == codes.ResourceExhausted, code == codes.Unavailable:
		return turnedAway, nil
	case err != nil:
		return 0, err
	case v.allowed && forged:
		return 0, errWronglyAllowed
	case v.allowed && time.Since(begin) > callDeadline: // Envoy would have given up
		return late, nil
	case v.allowed:
		return asWanted, nil
	case v.overloaded():
		return turnedAway, nil
	case forged:
		return stopped, nil
	}
	return misjudged, nil
}

// overload measures a server with a third of a CPU at so many open calls.
func (b *bench) overload(of lazy[*server], calls int) measurement {
	return func(ctx context.Context) (sample, error) {
		s, err := of(ctx)
		if err != nil {
			return sample{}, err
		}
		valid, err := newMessage(delivery{size: small}, asCheck)
		if err != nil {
			return sample{}, err
		}
		forged, err := newMessage(delivery{size: small, forged: true}, asCheck)
		if err != nil {
			return sample{}, err
		}
		cpus, err := usableCPUs()
		if err != nil {
			return sample{}, err
		}
		// A call costs its caller about as much as the server: one with a whole CPU could not be overloaded from another.
		for range busyOthers {
			busy, err := start("a process that keeps a CPU busy", cpus[:1], nil, b.self, "-busy")
			if err != nil {
				return sample{}, err
			}
			defer busy.stop()
		}
		if len(cpus) > 1 {
			if err := moveSelf(cpus[1:]); err != nil {
				return sample{}, err
			}
			defer moveSelf(cpus)
		}
		crowded := *s
		if crowded.conns, err = dial(ctx, s.address, 1+calls/callsPerConnection); err != nil {
			return sample{}, err
		}
		defer func() {
			for _, c := range crowded.conns {
				c.Close()
			}
		}()
		return b.watched(ctx, &crowded, crowded.crowd(valid, forged, calls), b.period, false)
	}
}

const (
	peakCalls = 64
	// busyOthers is how many processes that never rest have their share of the server's CPU.
	busyOthers = 2
	// envoyCalls is how many checks one Envoy has open at the most, by the circuit breaker of `hookauthz envoy render`.
	envoyCalls = 2048
	// callsPerConnection is a little less than what Envoy puts on one.
	callsPerConnection = 1000
	// callDeadline is that of `hookauthz envoy render`.
	callDeadline = 2250 * time.Millisecond
	// rest is what Retry-After says.
	rest = time.Second
)

// startPinned starts a server that has one CPU, and nothing else of ours on it until it is measured.
func (b *bench) startPinned(ctx context.Context) (*server, error) {
	cpus, err := usableCPUs()
	if err != nil {
		return nil, err
	}
	return b.startHookauthz(ctx, hookauthz{policies: 1, spec: fullSpec, cpus: cpus[:1]})
}

// keepBusy computes until ctx ends.
func keepBusy(ctx context.Context) error {
	for ctx.Err() == nil {
	}
	return nil
}
