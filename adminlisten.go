package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/extauthz"
	"github.com/hookauthz/hookauthz/extauthz/admin"
)

// off is the address of a listener that is not opened.
const off = "off"

// adminListenFlags say where serve answers those who run it, and whom.
type adminListenFlags struct {
	address string
	metrics string // of the second listener, for probes
	tokens  string
	hosts   []string
	tls     tlsFlags
	pprof   bool
}

func (f *adminListenFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.address, "admin", "127.0.0.1:9002", "`address` of metrics, health, API and console: host:port, unix:/path or off; off loopback it needs --admin-token-file and --admin-tls-cert")
	flags.StringVar(&f.tokens, "admin-token-file", "", "`file` with the tokens that --admin asks for, one a line: TOKEN, or operator|read-only NAME [EXPIRES] TOKEN; read again when it changes")
	flags.StringSliceVar(&f.hosts, "admin-host", nil, "`name` by which --admin may be asked, beside localhost and its address")
	flags.StringVar(&f.tls.cert, "admin-tls-cert", "", "certificate `file` of --admin (PEM); read again when it changes")
	flags.StringVar(&f.tls.key, "admin-tls-key", "", "key `file` of that certificate (PEM)")
	flags.StringVar(&f.metrics, "metrics", off, "`address` of a second listener with nothing but /metrics, /healthz and /readyz, in plain text, for kubelet and Prometheus: host:port, unix:/path or off")
	flags.BoolVar(&f.pprof, "pprof", false, "serve profiles at /debug/pprof of the admin address")
}

// check resolves the addresses and refuses what cannot be meant.
func (f *adminListenFlags) check() error {
	if f.metrics != off {
		var err error
		if f.metrics, _, err = resolve("metrics", f.metrics); err != nil {
			return err
		}
	}
	if f.address == off {
		switch {
		case f.pprof:
			return misused("give an --admin address", "--pprof needs the admin listener, which is off")
		case f.tokens != "" || f.tls.cert != "" || f.tls.key != "" || len(f.hosts) > 0:
			return misused("give an --admin address, or leave them out", "--admin-token-file, --admin-tls-cert, --admin-tls-key and --admin-host are for the admin listener, which is off")
		}
		return nil
	}
	asked := f.address
	var local bool
	var err error
	if f.address, local, err = resolve("admin", f.address); err != nil {
		return err
	}
	switch {
	case (f.tls.cert == "") != (f.tls.key == ""):
		return misused("give both, or neither", "--admin-tls-cert and --admin-tls-key belong together")
	case !local && (f.tokens == "" || f.tls.cert == ""):
		return misused("give --admin-token-file, --admin-tls-cert and --admin-tls-key, or listen at 127.0.0.1 or a unix: socket; --metrics ADDRESS serves metrics and probes alone",
			"--admin %s is reachable from other machines without a token and TLS: whoever reaches it can pause webhooks", asked)
	}
	return nil
}

// adminListeners are the listeners for those who run the server.
type adminListeners struct {
	admin, metrics net.Listener // nil: off
	config         admin.Config
}

// open reads the files and opens the listeners.
func (f *adminListenFlags) open(c admin.Config, metrics *extauthz.Metrics, logger *slog.Logger, now func() time.Time) (*adminListeners, error) {
	a := &adminListeners{config: c}
	a.config.Pprof, a.config.Hosts, a.config.Logger, a.config.Now = f.pprof, f.hosts, logger, now
	var err error
	if f.tokens != "" {
		if a.config.Tokens, err = admin.OpenTokens(f.tokens, logger, now); err != nil {
			return nil, failed("write one token a line: TOKEN, or operator|read-only NAME [EXPIRES] TOKEN", "--admin-token-file: %w", err)
		}
	}
	if a.config.TLS, err = f.secure(metrics, logger, now); err != nil {
		return nil, err
	}
	if f.address != off {
		if a.admin, err = listen(f.address); err != nil {
			return nil, err
		}
	}
	if f.metrics != off {
		if a.metrics, err = listen(f.metrics); err != nil {
			a.close()
			return nil, err
		}
	}
	return a, nil
}

// secure reads the certificate; nil where there is none.
func (f *adminListenFlags) secure(metrics *extauthz.Metrics, logger *slog.Logger, now func() time.Time) (*tls.Config, error) {
	if f.tls.cert == "" {
		return nil, nil
	}
	return extauthz.TLSFiles{Cert: f.tls.cert, Key: f.tls.key, Protocol: "http/1.1", Read: func(server, _ time.Time) {
		metrics.CertificateRead(extauthz.AdminCertificate, server)
	}}.Load(logger, now)
}

// close closes what is never going to be served.
func (a *adminListeners) close() {
	for _, l := range []net.Listener{a.admin, a.metrics} {
		if l != nil {
			l.Close()
		}
	}
}

// run serves until ctx ends. A listener that fails calls stop.
func (a *adminListeners) run(ctx context.Context, stop func()) error {
	var parts sync.WaitGroup
	var failures [2]error
	serve := func(i int, l net.Listener, with func(context.Context, net.Listener, admin.Config) error) {
		if l != nil {
			parts.Go(func() {
				failures[i] = with(ctx, l, a.config)
				stop()
			})
		}
	}
	serve(0, a.admin, admin.Serve)
	serve(1, a.metrics, admin.ServeProbes)
	parts.Wait()
	return errors.Join(failures[:]...)
}
