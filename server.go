package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hookauthz/hookauthz/audit"
	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/extauthz/admin"
	"github.com/hookauthz/hookauthz/lines"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/fetch"
	"github.com/hookauthz/hookauthz/policy/store"
	"github.com/hookauthz/hookauthz/reload"
)

// server is serve with everything opened and nothing running.
type server struct {
	logger   *slog.Logger
	metrics  *extauthz.Metrics
	policies *policies
	watcher  *reload.Watcher
	checks   *extauthz.Server
	lists    *fetch.Refresher
	certs    *fetch.Certificates
	store    *sharedStore // nil: memory
	traces   *traces      // nil: off
	desk     *incidentDesk
	audit    *auditing // nil: there is no file
	envoy    net.Listener
	admin    *adminListeners
	history  *extauthz.History
}

// logPatience is how long the last lines of the log may take when the program ends.
const logPatience = 2 * time.Second

func serve(ctx context.Context, p process, f *serveFlags) error {
	logger, log := newLogger(p.stderr, f.logLevel.value, f.logFormat.value)
	defer log.Close(logPatience)
	defer tuneCollector()()
	signals := make(chan os.Signal, 4)
	p.signals(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// Who reads the log may go away; that is no reason to refuse deliveries.
	signal.Ignore(syscall.SIGPIPE)
	s, err := newServer(p, f, logger, log)
	if err != nil {
		return err
	}
	return s.run(ctx, signals)
}

// newServer loads the policies and opens the listeners.
func newServer(p process, f *serveFlags, logger *slog.Logger, log *lines.Writer) (*server, error) {
	build := thisBuild()
	metrics := extauthz.NewMetrics(build.Version)
	metrics.WatchLog(log.LostLines)
	s := &server{logger: logger, metrics: metrics, policies: &policies{
		dir:     f.policies.dir,
		options: f.policies.options(p, policy.TolerateMissingSecrets),
		metrics: metrics,
		logger:  logger,
		now:     p.now,
	}}
	// The watcher is there before the policies are loaded, so that it misses no change of theirs.
	s.watcher = reload.New(reload.Config{Dir: f.policies.dir, Files: s.policies.secretFiles, Changed: s.policies.changed, Logger: logger})

	memory := store.NewMemory(store.MemoryConfig{})
	var err error
	if s.store, err = f.store.open(memory, metrics, logger); err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened {
			s.store.close()
			s.traces.close()
		}
	}()
	metrics.WatchStore(func() []extauthz.StoreStats { return s.store.stats(memory) })
	s.traces = openTraces(p, build, metrics, logger)
	config := s.store.engine(memory, metrics)
	config.Store = s.traces.store(config.Store)
	config.AllowStringBody = f.allowStringBody
	s.certs = newCertificates(metrics.Certificates(), logger, p.now)
	config.Certificates = s.certs
	if err := s.policies.start(config); err != nil {
		return nil, err
	}
	security, err := f.tls.load(metrics, logger, p.now)
	if err != nil {
		return nil, err
	}
	started := p.now()
	engine := s.policies.engine
	if s.desk, err = openIncidents(engine, s.store, f.store.required, f.state, logger, p.now); err != nil {
		return nil, err
	}
	if s.audit, err = openAudit(f.audit, metrics, logger, p.now); err != nil {
		return nil, err
	}
	s.desk.audit, s.policies.audit = s.audit, s.audit
	metrics.WatchIncidents(s.desk.book.List)
	metrics.WatchUses(engine.Uses)
	s.history = extauthz.NewHistory(metrics)
	denials := extauthz.NewDenials()
	s.lists = newRefresher(engine, f.cacheDir, metrics.Lists(), logger, p.now)
	s.checks = extauthz.NewServer(extauthz.Config{
		Decider:          engine,
		Settler:          engine,
		Logger:           logger,
		Metrics:          metrics,
		Audit:            s.audit.decisions(),
		Tracer:           s.traces.tracer(),
		Propagator:       s.traces.propagator(),
		Sample:           s.traces.sample(),
		Denials:          denials,
		Now:              p.now,
		TLS:              security,
		MaxBody:          int64(f.policies.maxBody),
		MaxInflightBytes: int64(f.maxInflight),
		Drain:            f.drain,
	})

	if s.envoy, err = listen(f.listen); err != nil {
		return nil, err
	}
	if s.admin, err = f.admin.open(admin.Config{
		Registry: metrics.Registry, Status: s.status(f, build, started), Secrets: s.secrets(p.now, started), Incidents: s.desk,
		Audit: s.audit.file(), Refused: s.audit.loginsRefused, Answered: metrics.Admin().Answered,
		Policies: engine.Set, History: s.history, Denials: denials,
	}, metrics, logger, p.now); err != nil {
		s.envoy.Close()
		return nil, err
	}
	s.announce(f, build)
	opened = true
	return s, nil
}

// status says what serves, for the admin listener.
func (s *server) status(f *serveFlags, build build, started time.Time) func() admin.Status {
	return func() admin.Status {
		set := s.policies.engine.Set()
		return admin.Status{
			Version: build.Version, Revision: set.Revision(), Webhooks: set.Len(), Started: started, Environment: f.policies.environment,
			Store: f.store.String(), Breaker: s.store.breaker(), Reload: s.policies.lastReload(),
		}
	}
}

// announce logs what this server is and how it is bounded.
func (s *server) announce(f *serveFlags, build build) {
	set, limits := s.policies.engine.Set(), s.checks.Limits()
	s.logger.Info("serving", "version", build.Version, "listen", addressOf(s.envoy), "admin", addressOf(s.admin.admin), "metrics", addressOf(s.admin.metrics), "tls", f.tls.cert != "",
		"client_certificates", f.tls.clientCA != "", "environment", f.policies.environment, "store", f.store.String(),
		"policy_revision", set.Revision(), "webhooks", set.Len(), "max_body", f.policies.maxBody.String(), "max_inflight_bytes", f.maxInflight.String(),
		slog.Group("limits", "memory_bytes", limits.Bytes, "messages", limits.Messages, "message_bytes", limits.MessageBytes,
			"connections", limits.Connections, "streams", limits.Streams, "window_bytes", limits.Window))
	if !f.listenLocal && f.tls.clientCA == "" {
		s.logger.Warn("anybody who reaches the listener can ask: --insecure-listen", "listen", addressOf(s.envoy))
	}
	if f.allowStringBody {
		s.logger.Warn("bodies that arrive as text are accepted: --allow-string-body")
	}
}

// addressOf is where a listener listens, as --listen takes it; a listener that is nil is off.
func addressOf(l net.Listener) string {
	if l == nil {
		return off
	}
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
	go func() { ended <- s.runParts(ctx, stop) }()
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
				s.audit.reopen()
			case ctx.Err() != nil:
				return failed("", "ended by a second signal while stopping: checks in flight were cut off")
			default:
				s.logger.Info("stopping", "signal", received.String())
				stop()
			}
		}
	}
}

// runParts runs every part until ctx ends and waits for all of them. A part that fails calls stop.
func (s *server) runParts(ctx context.Context, stop func()) error {
	defer stop()
	s.metrics.WatchReady(func() bool { return ctx.Err() == nil })
	s.admin.config.Ready = func() error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		return nil
	}
	// The admin listener outlives the checks, so that draining can be seen.
	outer, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	// The audit file outlives everything that is audited.
	audited, written := context.WithCancel(context.WithoutCancel(ctx))
	defer written()
	s.audit.note(audit.Entry{Kind: audit.Start, Version: thisBuild().Version, PolicyRevision: s.policies.engine.Set().Revision()})
	var writer, parts sync.WaitGroup
	writer.Go(func() { s.audit.run(audited, s.logger) })
	parts.Go(func() { s.watcher.Run(outer) })
	parts.Go(func() { s.lists.Run(outer) })
	parts.Go(func() { s.store.run(outer, s.policies.engine.Uses) })
	parts.Go(func() { s.desk.book.Run(outer) })
	parts.Go(func() { s.history.Run(outer, s.policies.now) })
	var adminFailure error
	parts.Go(func() { adminFailure = s.admin.run(outer, stop) })
	failure := s.checks.Serve(ctx, s.envoy)
	end()
	parts.Wait()
	s.audit.note(audit.Entry{Kind: audit.Stop})
	written()
	writer.Wait()
	s.certs.Close()
	s.traces.close()
	return errors.Join(failure, adminFailure)
}

// newLogger makes a logger whose lines nobody waits for. The Writer must be closed.
func newLogger(out io.Writer, level, format string) (logger *slog.Logger, w *lines.Writer) {
	var l slog.Level
	// The flag takes only levels that this understands.
	_ = l.UnmarshalText([]byte(level))
	w = lines.NewWriter(out, lines.WriterConfig{Lost: func(n int) {
		logger.Error("lines of the log were lost: standard error takes them too slowly", "lines", n)
	}})
	logger = slog.New(lines.NewHandler(w, format == "json", l))
	return logger, w
}

// load reads the files; nil where TLS is off.
func (f *tlsFlags) load(metrics *extauthz.Metrics, logger *slog.Logger, now func() time.Time) (*tls.Config, error) {
	if f.cert == "" {
		return nil, nil
	}
	return extauthz.TLSFiles{Cert: f.cert, Key: f.key, ClientCA: f.clientCA, ClientNames: f.clientSANs, Read: func(server, authorities time.Time) {
		metrics.CertificateRead(extauthz.ServerCertificate, server)
		if !authorities.IsZero() {
			metrics.CertificateRead(extauthz.ClientAuthorities, authorities)
		}
	}}.Load(logger, now)
}
