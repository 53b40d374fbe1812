package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
)

// storeFlags say where rates and replay memory live.
type storeFlags struct {
	url          string
	passwordFile string
	ca           string
	timeout      time.Duration
	required     bool
	replicas     int

	redis *store.RedisConfig // nil: memory. Known once check has read the flags
}

func (f *storeFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.url, "store", "memory", "where rates and replay memory live: memory, or a redis:// or rediss:// `URL` of Redis 7 or Valkey 8 (?cluster=true, ?sentinel=NAME, &addr=host:port)")
	flags.StringVar(&f.passwordFile, "store-password-file", "", "`file` with the store's password; read for each connection")
	flags.StringVar(&f.ca, "store-ca", "", "`file` with the authorities that the store's certificate may come from (PEM), instead of the system's")
	flags.DurationVar(&f.timeout, "store-timeout", 50*time.Millisecond, "how long a check waits for the shared store")
	flags.BoolVar(&f.required, "store-required", true, "end if the shared store does not answer at the start; false: onStoreFailure decides until it does")
	flags.IntVar(&f.replicas, "replicas", 0, "`number` of servers that share the limits while the shared store is away; 0: those that were lately alive")
}

// check reads the URL. Nothing that it says holds a password.
func (f *storeFlags) check() error {
	if !strings.HasPrefix(f.url, "redis:") && !strings.HasPrefix(f.url, "rediss:") {
		scheme, _, found := strings.Cut(f.url, ":")
		switch {
		case f.url == "memory" && (f.passwordFile != "" || f.ca != ""):
			return misused("give --store rediss://host:6379/0, or leave them out", "--store-password-file and --store-ca are for a shared store, and --store is memory")
		case f.url == "memory" && f.replicas != 0:
			return misused("give --store redis://host:6379/0, which they share", "--replicas %d: each server has a memory of its own", f.replicas)
		case f.url == "memory":
			return nil
		case found: // what follows may hold a password
			return misused("write --store memory or --store redis://host:6379/0", "there is no store %q", scheme+":...")
		}
		return misused("write --store memory or --store redis://host:6379/0", "there is no store %q", f.url)
	}
	c, err := store.ParseRedisURL(f.url)
	if err != nil {
		return misused(fixOf(err), "--store: %w", err)
	}
	switch {
	case f.timeout < time.Millisecond || f.timeout > 10*time.Second:
		return misused("write it as --store-timeout 50ms; less than Envoy's own timeout", "--store-timeout %s is not between 1ms and 10s", f.timeout)
	case f.replicas < 0:
		return misused("write --replicas 3, or 0 to count them", "--replicas %d is no number of servers", f.replicas)
	case f.ca != "" && c.TLS == nil:
		return misused("write rediss://", "--store-ca needs TLS, and --store says redis://")
	case f.passwordFile != "" && c.Password != "":
		return misused("leave one of them out", "--store has a password, and there is a --store-password-file")
	}
	c.CallTimeout = f.timeout
	f.redis = &c
	return nil
}

// fixOf is what to change, by an error of the store.
func fixOf(err error) string {
	var refused *store.Refused
	if errors.As(err, &refused) {
		return refused.Fix
	}
	return ""
}

// read reads the files that the flags name.
func (f *storeFlags) read() error {
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return failed("", "reading --store-ca: %w", err)
		}
		f.redis.TLS.RootCAs = x509.NewCertPool()
		if !f.redis.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return failed("give a file with PEM certificates", "--store-ca %q holds no certificate", f.ca)
		}
	}
	if f.passwordFile != "" {
		f.redis.ReadPassword = func() (string, error) { return readPassword(f.passwordFile) }
		if _, err := f.redis.ReadPassword(); err != nil {
			return failed("", "%w", err)
		}
	}
	return nil
}

// readPassword reads a file without its trailing newline.
func readPassword(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading --store-password-file: %w", err)
	}
	password, _ := bytes.CutSuffix(text, []byte("\n"))
	password, _ = bytes.CutSuffix(password, []byte("\r"))
	if len(password) == 0 || len(password) > 4096 {
		return "", fmt.Errorf("--store-password-file %q holds no password of 1 to 4096 bytes", file)
	}
	return string(password), nil
}

// sharedStore is the shared store with what guards it; nil where the memory is the store.
type sharedStore struct {
	redis *store.Redis
	guard *store.Guard
}

// startTimeout is how long the store may take to answer at the start.
const startTimeout = 5 * time.Second

// open makes the store and connects to it.
func (f *storeFlags) open(memory *store.Memory, metrics *extauthz.Metrics, logger *slog.Logger) (*sharedStore, error) {
	if f.redis == nil {
		return nil, nil
	}
	if err := f.read(); err != nil {
		return nil, err
	}
	s := &sharedStore{redis: store.NewRedis(*f.redis)}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.redis.Connect(ctx); err != nil {
		if f.required {
			s.redis.Close()
			return nil, failed(fixOf(err)+"; or start without it: --store-required=false", "%w", err)
		}
		logger.Warn("the store does not answer: onStoreFailure decides without it", "error", err, "fix", fixOf(err))
	}
	metrics.Breaker("store", 0)
	s.guard = store.NewGuard(store.GuardConfig{
		Shared: s.redis, Local: memory, Timeout: f.timeout, Replicas: f.replicas, Logger: logger,
		Changed: func(state store.BreakerState) { metrics.Breaker("store", int(state)) },
	})
	return s, nil
}

// engine says which stores decide.
func (s *sharedStore) engine(memory *store.Memory, metrics *extauthz.Metrics) policy.EngineConfig {
	if s == nil {
		return policy.EngineConfig{Store: metrics.Store(memory)}
	}
	metrics.WatchReplicas(s.guard.Replicas)
	return policy.EngineConfig{Store: metrics.Store(s.guard), Local: s.guard.Local(), Replicas: s.guard.Replicas}
}

// stats is how many keys this process holds.
func (s *sharedStore) stats(memory *store.Memory) (stats []extauthz.StoreStats) {
	all := memory.Stats()
	if s != nil {
		all = append(all, s.guard.Stats()...)
	}
	for _, kind := range all {
		stats = append(stats, extauthz.StoreStats(kind))
	}
	return stats
}

// breaker is the state of the circuit breaker; empty where there is none.
func (s *sharedStore) breaker() string {
	if s == nil {
		return ""
	}
	return s.guard.State().String()
}

// run watches the store and tells it of uses until ctx ends, and then closes it.
func (s *sharedStore) run(ctx context.Context, uses func() []policy.SecretUse) {
	if s == nil {
		return
	}
	var sharing sync.WaitGroup
	sharing.Go(func() { s.guard.ShareUses(ctx, uses) })
	s.guard.Run(ctx)
	sharing.Wait()
	s.redis.Close()
}

// lastUses is when the servers that share the store have seen secret versions used; nil where there is none.
func (s *sharedStore) lastUses(ctx context.Context) (map[policy.VersionID]time.Time, error) {
	if s == nil {
		return nil, nil
	}
	return s.guard.LastUses(ctx)
}

// close ends the connections of a store that was never run.
func (s *sharedStore) close() {
	if s != nil {
		s.redis.Close()
	}
}

// String is where the store is, without user and password.
func (f *storeFlags) String() string {
	if f.redis == nil {
		return f.url
	}
	return f.redis.String()
}
