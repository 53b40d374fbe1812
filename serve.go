package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	policies policyFlags
	listen   string
	// Only this machine reaches it. Known once check has resolved the address.
	listenLocal     bool
	admin           adminListenFlags
	store           storeFlags
	state, audit    string
	cacheDir        string
	tls             tlsFlags
	insecureListen  bool
	maxInflight     size
	allowStringBody bool
	drain           time.Duration
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
or of a secret file is in force within seconds; SIGHUP asks for it at once, and has an --audit file that was
moved away go on in a new one. Policies with a fault are refused
and the last good ones stay.

SIGTERM and SIGINT stop it: it says so to Envoy's health check, finishes the checks in flight (--drain at
most) and ends. A second signal ends it at once.

Decisions and events are logged to standard error, one line each. No check waits for it: lines that it does not
take (more than 4 MiB behind) are dropped, and their number is logged. Traces go where the OTEL_
variables of OpenTelemetry say, nowhere without them: OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318`,
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
	flags.admin.add(c)
	flags.store.add(c)
	f.StringVar(&flags.state, "state", "", "`file` in which incident actions (pause, revoke, block) outlive the process; a shared --store keeps them as well")
	f.StringVar(&flags.audit, "audit", "", "`file` to which actions, reloads and the decisions of policies with log.audit are added, each line with the hash of the one before")
	f.StringVar(&flags.cacheDir, "cache-dir", "", "existing `folder` in which fetched address lists outlive the process")
	f.StringVar(&flags.tls.cert, "tls-cert", "", "certificate `file` (PEM); read again when it changes")
	f.StringVar(&flags.tls.key, "tls-key", "", "key `file` of the certificate (PEM)")
	f.StringVar(&flags.tls.clientCA, "tls-client-ca", "", "`file` with the authorities whose client certificates may connect (PEM)")
	f.StringSliceVar(&flags.tls.clientSANs, "tls-client-san", nil, "DNS or URI `name` that the client's certificate must carry, one of those given")
	f.BoolVar(&flags.insecureListen, "insecure-listen", false, "listen off loopback without client certificates: whoever reaches it can spend limits and probe secrets")
	f.Var(&flags.maxInflight, "max-inflight-bytes", "memory for deliveries that are being checked; what goes beyond is refused with 503")
	f.BoolVar(&flags.allowStringBody, "allow-string-body", false, "accept bodies that Envoy sends as text (without pack_as_bytes), where they hold no '!'")
	f.DurationVar(&flags.drain, "drain", 10*time.Second, "how long checks in flight may take when it stops")
	choose(c, flags.logLevel, "log-level", "", "least level that is logged")
	choose(c, flags.logFormat, "log-format", "", "format of the log")
	return c
}

// check resolves the addresses and refuses what cannot be meant, before anything is opened.
func (f *serveFlags) check() error {
	if err := f.store.check(); err != nil {
		return err
	}
	if f.drain <= 0 {
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
	if f.cacheDir != "" {
		if info, err := os.Stat(f.cacheDir); err != nil || !info.IsDir() {
			return misused("make it, or leave --cache-dir out", "--cache-dir %q is not a folder", f.cacheDir)
		}
	}
	var err error
	asked := f.listen
	if f.listen, f.listenLocal, err = resolve("listen", f.listen); err != nil {
		return err
	}
	if err := f.admin.check(); err != nil {
		return err
	}
	if err := f.tls.check(); err != nil {
		return err
	}
	if !f.listenLocal && f.tls.clientCA == "" && !f.insecureListen {
		return misused("give --tls-cert, --tls-key and --tls-client-ca, listen at 127.0.0.1 or a unix: socket, or accept it with --insecure-listen",
			"--listen %s is reachable from other machines without a client certificate: whoever reaches it can spend limits and probe secrets", asked)
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
