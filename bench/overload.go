package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errWronglyAllowed is the one thing that no load may cause.
var errWronglyAllowed = errors.New("a forged delivery was ALLOWED")

// forgedShare is how many of the deliveries under overload are forged: one in so many.
const forgedShare = 4

// crowd are callers that ask as Envoy does: each waits for its answer no longer than a deadline, and then asks for the next delivery at once.
func (s *server) crowd(valid, forged *message, count int, deadline time.Duration) []caller {
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
			ctx, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			err = conn.Invoke(ctx, checkMethod, request, v)
			switch {
			case status.Code(err) == codes.DeadlineExceeded:
				return late, nil
			case status.Code(err) == codes.ResourceExhausted, status.Code(err) == codes.Unavailable:
				return turnedAway, nil
			case err != nil:
				return 0, err
			case v.allowed && bad == 1:
				return 0, errWronglyAllowed
			case v.allowed:
				return asWanted, nil
			case v.overloaded():
				return turnedAway, nil
			case bad == 1:
				return stopped, nil
			}
			return 0, fmt.Errorf("a valid delivery was %s", v)
		})
	}
	return callers
}

// overload measures a server with a CPU of its own at so many open calls.
func (b *bench) overload(of func(context.Context) (*server, error), calls int) func(context.Context) (sample, error) {
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
		return b.watched(ctx, &crowded, crowded.crowd(valid, forged, calls, callDeadline), false)
	}
}

const (
	peakCalls = 64
	// callsPerConnection is a little less than what Envoy puts on one.
	callsPerConnection = 1000
	// callDeadline is that of `hookauthz envoy render`.
	callDeadline = 2250 * time.Millisecond
)

// startPinned starts a server that has one CPU, and nothing else of ours on it while it is measured.
func (b *bench) startPinned(ctx context.Context) (*server, error) {
	cpus, err := usableCPUs()
	if err != nil {
		return nil, err
	}
	return b.startHookauthz(ctx, hookauthz{policies: 1, spec: fullSpec, cpus: cpus[:1]})
}
