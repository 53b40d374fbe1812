package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
)

// profile writes a CPU profile of a server under a load as a busy one has it: mostly small deliveries at many endpoints, some large ones, and a
// quarter that is denied. With -store it goes to the shared store.
func (b *bench) profile(ctx context.Context, file string) error {
	const policies = 100
	s, err := b.startHookauthz(ctx, hookauthz{policies: policies, spec: fullSpec, shared: b.storeURL != "", flags: []string{"--pprof"}})
	if err != nil {
		return err
	}
	var callers []caller
	for _, part := range []struct {
		share    int // of 16
		delivery delivery
		allowed  bool
	}{
		{8, delivery{size: small, policies: policies}, true},
		{3, delivery{size: medium, policies: policies}, true},
		{1, delivery{size: large, policies: policies}, true},
		{2, delivery{size: small, policies: policies, forged: true}, false},
		{1, delivery{size: small, policies: policies, address: "198.51.100.1"}, false},
		{1, delivery{size: small, endpoint: "nobody"}, false},
	} {
		if !slices.Contains(b.sizes, part.delivery.size) {
			continue
		}
		m, err := newMessage(part.delivery, asCheck)
		if err != nil {
			return err
		}
		callers = append(callers, s.checkers(m, max(1, part.share*b.concurrency/16), part.allowed)...)
	}
	profiled := make(chan error, 1)
	go func() { profiled <- s.saveProfile(ctx, file, b.period) }()
	if _, err := drive(ctx, callers, b.warmUp(), b.period, s.process); err != nil {
		return err
	}
	return <-profiled
}

// profile takes a CPU profile of the server.
func (s *server) profile(ctx context.Context, period time.Duration) ([]byte, error) {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.admin, max(1, int(period.Seconds())))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the profile: %s", response.Status)
	}
	return data, err
}

func (s *server) saveProfile(ctx context.Context, file string, period time.Duration) error {
	data, err := s.profile(ctx, period)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
