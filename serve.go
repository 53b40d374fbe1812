package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/reload"
)

// server is serve with everything opened and nothing running.
type server struct {
	logger   *slog.Logger
	policies *policies
	watcher  *reload.Watcher
	checks   *extauthz.Server
	envoy    net.Listener
	admin    net.Listener // nil: off
	config   admin.Config
}

func serve(ctx context.Context, p process, f *serveFlags) error {
	signals := make(chan os.Signal, 4)
	p.signals(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	s, err := newServer(p, f)
	if err != nil {
		return err
	}
	return s.run(ctx, signals)
}

// newServer loads the policies and opens the listeners.
func newServer(p process, f *serveFlags) (*server, error) {
	logger := newLogger(p.stderr, f.logLevel.value, f.logFormat.value)
	build := thisBuild()
	metrics := extauthz.NewMetrics(build.Version)
	s := &server{logger: logger, policies: &policies{
		dir:     f.policies.dir,
		options: f.policies.options(p, policy.TolerateMissingSecrets),
		metrics: metrics,
		logger:  logger,
		now:     p.now,
	}}
	// The watcher is there before the policies are loaded, so that it misses no change of theirs.
	s.watcher = reload.New(reload.Config{Dir: f.policies.dir, Files: s.policies.secretFiles, Changed: s.policies.changed, Logger: logger})

	memory := store.NewMemory(store.MemoryConfig{})
	metrics.WatchStore(func() []extauthz.StoreStats {
		var stats []extauthz.StoreStats
		for _, kind := range memory.Stats() {
			stats = append(stats, extauthz.StoreStats(kind))
		}
		return stats
	})
	err := s.policies.start(policy.EngineConfig{Store: metrics.Store(memory), AllowStringBody: f.allowStringBody})
	if err != nil {
		return nil, err
	}
	security, err := f.tls.load(logger, p.now)
	if err != nil {
		return nil, err
	}
	engine := s.policies.engine
	s.checks = extauthz.NewServer(extauthz.Config{
		Decider:          engine,
		Settler:          engine,
		Logger:           logger,
		Metrics:          metrics,
		Now:              p.now,
		TLS:              security,
		MaxBody:          int64(f.policies.maxBody),
		MaxInflightBytes: int64(f.maxInflight),
		Drain:            f.drain,
	})
	s.config = admin.Config{Registry: metrics.Registry, Pprof: f.pprof}

	if s.envoy, err = listen(f.listen); err != nil {
		return nil, err
	}
	if f.admin != "off" {
		if s.admin, err = listen(f.admin); err != nil {
			s.envoy.Close()
			return nil, err
		}
	}
	s.announce(f, build)
	return s, nil
}

// announce logs what this server is and how it is bounded.
func (s *server) announce(f *serveFlags, build build) {
	adminAddress := "off"
	if s.admin != nil {
		adminAddress = addressOf(s.admin)
	}
	set, limits := s.policies.engine.Set(), s.checks.Limits()
	s.logger.Info("serving", "version", build.Version, "listen", addressOf(s.envoy), "admin", adminAddress, "tls", f.tls.cert != "",
		"client_certificates", f.tls.clientCA != "", "environment", f.policies.environment, "store", f.store,
		"policy_revision", set.Revision(), "webhooks", set.Len(), "max_body", f.policies.maxBody.String(), "max_inflight_bytes", f.maxInflight.String(),
		slog.Group("limits", "memory_bytes", limits.Bytes, "messages", limits.Messages, "message_bytes", limits.MessageBytes,
			"connections", limits.Connections, "streams", limits.Streams, "window_bytes", limits.Window))
	if !isLocal(f.listen) && f.tls.clientCA == "" {
		s.logger.Warn("anybody who reaches the listener can ask: --insecure-listen", "listen", addressOf(s.envoy))
	}
	if f.allowStringBody {
		s.logger.Warn("bodies that arrive as text are accepted: --allow-string-body")
	}
	if f.pprof && !isLocal(f.admin) {
		s.logger.Warn("profiles can be read by anybody who reaches the admin listener: --pprof", "admin", adminAddress)
	}
}

// addressOf is where a listener listens, as --listen takes it.
func addressOf(l net.Listener) string {
	if a := l.Addr(); a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return l.Addr().String()
}

// run serves until a signal or ctx ends it, or a part fails. A second signal does not wait for the checks in flight.
func (s *server) run(ctx context.Context, signals <-chan os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, stop) }()
	for {
		select {
		case err := <-ended:
			if err == nil {
				s.logger.Info("stopped")
			}
			return err
		case received := <-signals:
			switch {
			case received == syscall.SIGHUP:
				s.logger.Info("loading the policies again", "signal", received.String())
				s.watcher.Reload()
			case ctx.Err() != nil:
				return failed("", "ended by a second signal while stopping: checks in flight were cut off")
			default:
				s.logger.Info("stopping", "signal", received.String())
				stop()
			}
		}
	}
}

// serve runs every part until ctx ends and waits for all of them. A part that fails calls stop.
func (s *server) serve(ctx context.Context, stop func()) error {
	defer stop()
	s.config.Ready = func() error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return nil
	}
	// The admin listener outlives the checks, so that draining can be seen.
	outer, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var parts sync.WaitGroup
	parts.Go(func() { s.watcher.Run(outer) })
	var adminFailure error
	if s.admin != nil {
		parts.Go(func() {
			adminFailure = admin.Serve(outer, s.admin, s.config)
			stop()
		})
	}
	failure := s.checks.Serve(ctx, s.envoy)
	end()
	parts.Wait()
	return errors.Join(failure, adminFailure)
}

// serveFlags are the flags of serve.
type serveFlags struct {
	policies        policyFlags
	listen, admin   string
	store           string
	tls             tlsFlags
	insecureListen  bool
	maxInflight     size
	allowStringBody bool
	drain           time.Duration
	pprof           bool
	logLevel        *choice
	logFormat       *choice
}

// tlsFlags say how Envoy's connection is secured.
type tlsFlags struct {
	cert, key, clientCA string
	clientSANs          []string
}

func newServe(p process) *cobra.Command {
	flags := serveFlags{
		maxInflight: 1 << 30,
		logLevel:    oneOf("info", "debug", "warn", "error"),
		logFormat:   oneOf("json", "text"),
	}
	c := &cobra.Command{
		Use:   "serve --policies DIR",
		Short: "Answer Envoy's external-authorization calls",
		Long: `serve decides about the deliveries that Envoy asks about, by the policy files in a folder. A change of the policies
or of a secret file is in force within seconds; SIGHUP asks for it at once. Policies with a fault are refused
and the last good ones stay.

SIGTERM and SIGINT stop it: it says so to Envoy's health check, finishes the checks in flight (--drain at
most) and ends. A second signal ends it at once.

Decisions and events are logged to standard error, one line each.`,
		Example: `  hookauthz serve --policies policies/
  hookauthz serve --policies /etc/hookauthz --listen unix:/run/hookauthz/authz.sock --environment production
  hookauthz serve --policies /etc/hookauthz --listen :9001 --tls-cert tls.crt --tls-key tls.key \
    --tls-client-ca clients.pem --tls-client-san envoy.mesh.example.com`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if flags.policies.dir == "" {
				return required(c, "policies")
			}
			if err := flags.check(); err != nil {
				return err
			}
			return serve(c.Context(), p, &flags)
		},
	}
	flags.policies.add(c, false)
	f := c.Flags()
	f.StringVar(&flags.listen, "listen", "127.0.0.1:9001", "`address` for Envoy: host:port or unix:/path")
	f.StringVar(&flags.admin, "admin", "127.0.0.1:9002", "`address` of metrics and health: host:port, unix:/path or off")
	f.StringVar(&flags.store, "store", "memory", "where rates and replay memory live: memory")
	f.StringVar(&flags.tls.cert, "tls-cert", "", "certificate `file` (PEM); read again when it changes")
	f.StringVar(&flags.tls.key, "tls-key", "", "key `file` of the certificate (PEM)")
	f.StringVar(&flags.tls.clientCA, "tls-client-ca", "", "`file` with the authorities whose client certificates may connect (PEM)")
	f.StringSliceVar(&flags.tls.clientSANs, "tls-client-san", nil, "DNS or URI `name` that the client's certificate must carry, one of those given")
	f.BoolVar(&flags.insecureListen, "insecure-listen", false, "listen off loopback without client certificates: whoever reaches it can spend limits and probe secrets")
	f.Var(&flags.maxInflight, "max-inflight-bytes", "memory for deliveries that are being checked; what goes beyond is refused with 503")
	f.BoolVar(&flags.allowStringBody, "allow-string-body", false, "accept bodies that Envoy sends as text (without pack_as_bytes), where they hold no '!'")
	f.DurationVar(&flags.drain, "drain", 10*time.Second, "how long checks in flight may take when it stops")
	f.BoolVar(&flags.pprof, "pprof", false, "serve profiles at /debug/pprof of the admin address")
	choose(c, flags.logLevel, "log-level", "", "least level that is logged")
	choose(c, flags.logFormat, "log-format", "", "format of the log")
	return c
}

// check refuses combinations that cannot be meant, before anything is opened.
func (f *serveFlags) check() error {
	switch {
	case strings.HasPrefix(f.store, "redis:"), strings.HasPrefix(f.store, "rediss:"):
		return misused("leave --store out: memory is the store of one replica", "--store %s: a shared store is not supported by this version", schemeOf(f.store))
	case f.store != "memory":
		return misused("write --store memory", "there is no store %q", f.store)
	case f.drain <= 0:
		return misused("write it as --drain 10s", "--drain %s leaves no time", f.drain)
	}
	if most := int64(1 << 30); int64(f.policies.maxBody) > most {
		return misused("Envoy holds each body in memory as well; 25MiB is GitHub's largest", "--max-body %s is more than 1GiB", f.policies.maxBody.String())
	}
	// Half of the memory is for messages that are read, which take twice their size; the other half for what is received meanwhile.
	if least := 4 * (f.policies.maxBody + 1<<20); f.maxInflight < least {
		return misused(fmt.Sprintf("give at least %s", least.String()),
			"--max-inflight-bytes %s is too little for deliveries of --max-body %s", f.maxInflight.String(), f.policies.maxBody.String())
	}
	if err := checkAddress("listen", f.listen); err != nil {
		return err
	}
	if f.admin != "off" {
		if err := checkAddress("admin", f.admin); err != nil {
			return err
		}
	}
	if f.pprof && f.admin == "off" {
		return misused("give an --admin address", "--pprof needs the admin listener, which is off")
	}
	if err := f.tls.check(); err != nil {
		return err
	}
	if !isLocal(f.listen) && f.tls.clientCA == "" && !f.insecureListen {
		return misused("give --tls-cert, --tls-key and --tls-client-ca, listen at 127.0.0.1 or a unix: socket, or accept it with --insecure-listen",
			"--listen %s is reachable from other machines without a client certificate: whoever reaches it can spend limits and probe secrets", f.listen)
	}
	return nil
}

func (f *tlsFlags) check() error {
	switch {
	case (f.cert == "") != (f.key == ""):
		return misused("give both, or neither", "--tls-cert and --tls-key belong together")
	case f.clientCA != "" && f.cert == "":
		return misused("give --tls-cert and --tls-key too", "--tls-client-ca needs a certificate of the server")
	case len(f.clientSANs) > 0 && f.clientCA == "":
		return misused("give --tls-client-ca: the authorities that the client's certificate must come from", "--tls-client-san needs --tls-client-ca")
	}
	return nil
}

// load reads the files; nil where TLS is off.
func (f *tlsFlags) load(logger *slog.Logger, now func() time.Time) (*tls.Config, error) {
	if f.cert == "" {
		return nil, nil
	}
	return extauthz.TLSFiles{Cert: f.cert, Key: f.key, ClientCA: f.clientCA, ClientNames: f.clientSANs}.Load(logger, now)
}

// schemeOf is a URL's scheme: the rest may hold a password.
func schemeOf(url string) string {
	scheme, _, _ := strings.Cut(url, ":")
	return scheme + "://..."
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	// The flag takes only levels that this understands.
	_ = l.UnmarshalText([]byte(level))
	options := &slog.HandlerOptions{Level: l}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}
