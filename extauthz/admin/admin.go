// Package admin is the listener for those who run the server: metrics, health and, on demand, profiles.
package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/loglimit"
	"github.com/hookauthz/hookauthz/policy"
)

// Config says what the listener shows and who may ask.
type Config struct {
	// Registry holds the metrics. Required.
	Registry *prometheus.Registry
	// Ready says why the server should get no deliveries, or nil. Default: it always should.
	Ready func() error
	// Status says what serves. Nil: nothing is known.
	Status func() Status
	// Secrets reports on every secret version. Nil: there is none.
	Secrets func(context.Context, SecretsQuery) Secrets
	// Incidents knows what the people on call hold up. Nil: there is no such thing here.
	Incidents Incidents
	// Audit is the audit file. Nil: there is none.
	Audit *audit.Log
	// Answered is told the status of each answer. Nil: nobody is.
	Answered func(status int)
	// Policies are those in force. Required for /api/v1/endpoints.
	Policies func() *policy.Set
	// History and Denials are what the console shows of the past. Required for /api/v1/endpoints and /api/v1/denials.
	History *extauthz.History
	Denials *extauthz.Denials
	// Pprof serves profiles at /debug/pprof.
	Pprof bool
	// Tokens are asked for, but at /healthz and /readyz. Nil: whoever reaches the listener is an operator.
	Tokens *Tokens
	// TLS secures the listener. Nil: it is in plain text.
	TLS *tls.Config
	// Hosts are names in Host that are answered, beside localhost, loopback addresses and the address that was reached.
	Hosts []string
	// Refused is told of refused tokens: how many, and where the last came from. Nil: nobody is, beside the log.
	Refused func(count int, lastFrom string)
	// Logger gets the faults of the listener itself. Nil: nobody does.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Status == nil {
		c.Status = func() Status { return Status{} }
	}
	if c.Secrets == nil {
		c.Secrets = noSecrets
	}
	return c
}

// maxScrapes is how many scrapes are served at once: each holds all metrics in memory.
const maxScrapes = 8

// Probes serves /metrics, /healthz and /readyz to anybody.
func Probes(c Config) http.Handler { return careful(probes(c.withDefaults())) }

func probes(c Config) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := c.Ready(); err != nil {
			say(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		say(w, http.StatusOK, "ok")
	})
	return mux
}

// Handler serves everything, to those who may ask.
func Handler(c Config) http.Handler {
	c = c.withDefaults()
	return handler(&c, newAccess(&c))
}

func handler(c *Config, a *access) http.Handler {
	mux := probes(*c)
	if c.Pprof { // without cmdline: flags can hold the password of a store
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	(&api{config: c}).routes(mux)
	mux.HandleFunc("GET /{$}", console)
	mux.HandleFunc("GET /{file}", console)
	return careful(counted(a.guard(mux), c.Answered))
}

// counted tells of the status of each answer.
func counted(next http.Handler, answered func(status int)) http.Handler {
	if answered == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &statusWriter{w, http.StatusOK}
		defer func() { answered(s.status) }()
		next.ServeHTTP(s, r)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach what is below: a profile of the CPU asks for a longer deadline.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// careful keeps answers out of caches, and browsers from guessing what they are.
func careful(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

// grace is how long requests in flight may take once the listener stops.
const grace = 2 * time.Second

// Serve answers on a listener until ctx ends. What is under way then may take 2 seconds; what is left is cut off.
func Serve(ctx context.Context, l net.Listener, c Config) error {
	c = c.withDefaults()
	a := newAccess(&c)
	var told sync.WaitGroup
	defer told.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	told.Go(func() { a.run(ctx) })
	if c.TLS != nil {
		l = tls.NewListener(l, c.TLS)
	}
	return serve(ctx, l, handler(&c, a), c.Logger)
}

// ServeProbes is Serve for what Probes serves.
func ServeProbes(ctx context.Context, l net.Listener, c Config) error {
	c = c.withDefaults()
	return serve(ctx, l, Probes(c), c.Logger)
}

// faultLogEvery bounds the log of the listener's own faults: whoever reaches it can make failed handshakes.
const faultLogEvery = 10 * time.Second

// faultLog takes what net/http logs, one line each.
type faultLog struct {
	logger *slog.Logger
	limit  loglimit.Limit
}

func (l *faultLog) Write(line []byte) (int, error) {
	if held, due := l.limit.Due(); due {
		l.logger.Warn(strings.TrimSpace(string(line)), "repeated", held)
	}
	return len(line), nil
}

func serve(ctx context.Context, l net.Listener, h http.Handler, logger *slog.Logger) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      90 * time.Second, // a CPU profile takes 30 s unless it is told otherwise
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(&faultLog{logger: logger, limit: loglimit.Limit{Every: faultLogEvery, Now: time.Now}}, "", 0),
	}
	defer server.Close()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving the admin listener: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	_ = server.Shutdown(stop) // what did not end in time is closed on return
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the admin listener: %w", err)
	}
	return nil
}
