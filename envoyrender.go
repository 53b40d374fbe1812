package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookauthz/hookauthz/envoy"
	"github.com/hookauthz/hookauthz/policy"
	"github.com/hookauthz/hookauthz/policy/source"
)

// renderFlags are the flags of envoy render.
type renderFlags struct {
	policies                    policyFlags
	format, others              *choice
	listen, authz, upstream     string
	adminPort                   uint16
	tls                         envoy.KeyPair
	authzTLS                    envoy.MutualTLS
	insecureListen, insecureHop bool
	proxyProtocol               bool
	proxyFrom, xffTrusted       []string
	maxConnections              uint32
	maxHeap                     size
	mesh                        envoy.Mesh
}

func newEnvoyRender(p process) *cobra.Command {
	flags := renderFlags{
		format:  oneOf("bootstrap", "filter", "istio", "envoy-gateway", "contour"),
		others:  oneOf("deny", "pass"),
		maxHeap: envoy.DefaultMaxHeap,
	}
	c := &cobra.Command{
		Use:   "render --policies DIR --upstream HOST:PORT",
		Short: "Write Envoy's configuration from policies",
		Long: `render writes a configuration in which every request that reaches the application has passed a Check: one
route for each policy, bodies whole and raw, and nothing left at a default that is a way around.
docs/envoy.md says why each setting is there. The same policies and flags give the same bytes.

Formats: bootstrap is a complete file for envoy -c. filter is the parts of it for an Envoy that exists:
what the connection manager needs, the HTTP filters, the routes and the clusters. istio, envoy-gateway and
contour are manifests for a gateway of those meshes; --upstream and --authz then name services
(NAME.NAMESPACE:PORT), and comments say what the mesh cannot express.

Secrets are not read. File names of certificates are written as they are given: Envoy opens them.`,
		Example: `  hookauthz envoy render --policies policies/ --upstream 127.0.0.1:8080 > envoy.yaml
  hookauthz envoy render --policies policies/ --upstream app:8080 --listen 0.0.0.0:8443 \
    --tls-cert hooks.pem --tls-key hooks.key --authz unix:/run/hookauthz/authz.sock
  hookauthz envoy render --policies policies/ --upstream app:8080 --format filter
  hookauthz envoy render --policies policies/ --format istio --upstream app:8080 \
    --authz hookauthz.security:9001 --namespace webhooks --gateway webhooks | kubectl apply -f -`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := flags.policies.load(c, p, policy.SkipSecrets)
			if err != nil {
				return err
			}
			config, err := flags.config(c)
			if err != nil {
				return err
			}
			config.Endpoints = set.Endpoints()
			plan, err := envoy.NewPlan(config)
			if err != nil {
				return failed("write match: {paths: [/webhooks/name]} in the policies", "--policies %q: %w", flags.policies.dir, err)
			}
			text, err := flags.render(plan)
			if err != nil {
				return err
			}
			flags.warn(p.stderr, plan)
			_, err = io.WriteString(p.stdout, text)
			return err
		},
	}
	flags.policies.add(c, false)
	f := c.Flags()
	choose(c, flags.format, "format", "", "what to write")
	f.StringVar(&flags.upstream, "upstream", "", "`address` of the application: host:port")
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8443", "`address` for senders: host:port")
	f.StringVar(&flags.authz, "authz", "127.0.0.1:9001", "`address` of hookauthz: host:port or unix:/path")
	f.Uint16Var(&flags.adminPort, "admin-port", 0, "`port` of Envoy's admin interface on 127.0.0.1; 0: none")
	f.StringVar(&flags.tls.Cert, "tls-cert", "", "certificate `file` that senders see (PEM)")
	f.StringVar(&flags.tls.Key, "tls-key", "", "key `file` of the certificate (PEM)")
	f.BoolVar(&flags.insecureListen, "insecure-listen", false, "listen off loopback without TLS: something in front must end it")
	f.StringVar(&flags.authzTLS.CA, "authz-ca", "", "`file` with the authority of hookauthz's certificate (PEM)")
	f.StringVar(&flags.authzTLS.Cert, "authz-cert", "", "certificate `file` that Envoy shows hookauthz (PEM)")
	f.StringVar(&flags.authzTLS.Key, "authz-key", "", "key `file` of that certificate (PEM)")
	f.BoolVar(&flags.insecureHop, "insecure-authz", false, "call hookauthz on another machine without TLS: something between must secure it, such as a mesh")
	f.BoolVar(&flags.proxyProtocol, "proxy-protocol", false, "a balancer in front opens connections with the PROXY protocol, version 2")
	f.StringSliceVar(&flags.proxyFrom, "proxy-from", nil, "addresses of that balancer, as `CIDR`; nobody else may connect")
	f.StringSliceVar(&flags.xffTrusted, "xff-trusted", nil, "addresses of the HTTP proxies in front, as `CIDR`: their X-Forwarded-For is believed")
	choose(c, flags.others, "others", "", "what no policy is for: deny answers 404, pass gives it to the application unchecked")
	f.Uint32Var(&flags.maxConnections, "max-connections", envoy.DefaultMaxConnections, "how many senders may be connected at once")
	f.StringVar(&flags.mesh.Namespace, "namespace", "webhooks", "`namespace` of the gateway, its routes and the application (meshes)")
	f.StringVar(&flags.mesh.Gateway, "gateway", "webhooks", "`name` of the gateway; for Istio also the value of the label istio of its pods (meshes)")
	f.StringVar(&flags.mesh.Listener, "gateway-listener", "https", "`name` of its HTTPS listener (envoy-gateway)")
	f.StringVar(&flags.mesh.Certificate, "tls-secret", "webhooks-tls", "`name` of the Secret with the certificate that senders see (contour)")
	f.Var(&flags.maxHeap, "max-heap", "memory for Envoy; near it requests are refused")
	return c
}

// config reads the flags and refuses what cannot be meant.
func (f *renderFlags) config(c *cobra.Command) (envoy.Config, error) {
	if f.upstream == "" {
		return envoy.Config{}, required(c, "upstream")
	}
	config := envoy.Config{
		AdminPort:      f.adminPort,
		ProxyProtocol:  f.proxyProtocol,
		PassOthers:     f.others.value == "pass",
		MaxConnections: uint64(f.maxConnections),
		MaxHeap:        uint64(f.maxHeap),
	}
	for _, a := range []struct {
		flag, text string
		into       *envoy.Address
	}{{"upstream", f.upstream, &config.Upstream}, {"listen", f.listen, &config.Listen}, {"authz", f.authz, &config.Authz}} {
		var err error
		if *a.into, err = envoy.ParseAddress(a.text); err != nil {
			return config, misused("write it as 127.0.0.1:8080", "--%s: %w", a.flag, err)
		}
	}
	for _, l := range []struct {
		flag  string
		texts []string
		into  *[]netip.Prefix
	}{{"proxy-from", f.proxyFrom, &config.ProxyFrom}, {"xff-trusted", f.xffTrusted, &config.XFFTrusted}} {
		var err error
		if *l.into, err = proxies(l.flag, l.texts); err != nil {
			return config, err
		}
	}
	return config, f.secure(&config)
}

// secure sets how connections are secured, and refuses those that need to be and are not.
func (f *renderFlags) secure(config *envoy.Config) error {
	_, isAddress := config.Listen.IP()
	given := 0
	for _, name := range []string{f.authzTLS.CA, f.authzTLS.Cert, f.authzTLS.Key} {
		if name != "" {
			given++
		}
	}
	switch {
	case !isAddress:
		return misused("write an address of this machine, such as 0.0.0.0:8443", "--listen %s: Envoy listens at addresses, not at names or sockets", f.listen)
	case (f.tls.Cert == "") != (f.tls.Key == ""):
		return misused("give both, or neither", "--tls-cert and --tls-key belong together")
	case f.tls.Cert == "" && !config.Listen.Local() && !f.insecureListen:
		return misused("give --tls-cert and --tls-key, listen at 127.0.0.1, or accept it with --insecure-listen where something in front ends TLS",
			"--listen %s is reachable from other machines without TLS: whoever is on the way reads deliveries", f.listen)
	case given != 0 && given != 3:
		return misused("give all three, or none", "--authz-ca, --authz-cert and --authz-key belong together")
	case given == 0 && !config.Authz.Local() && !f.insecureHop && !f.forMesh():
		return misused("give --authz-ca, --authz-cert and --authz-key, use a unix: socket or 127.0.0.1, or accept it with --insecure-authz where a mesh secures the way",
			"--authz %s is on another machine and the way there has no TLS: whoever is on it can answer in hookauthz's place", f.authz)
	case len(config.ProxyFrom) > 0 && !f.proxyProtocol:
		return misused("give --proxy-protocol too", "--proxy-from says who speaks the PROXY protocol, which is off")
	case f.format.value == "bootstrap" && config.Upstream.Path == "" && config.Upstream == config.Listen:
		return misused("give the application's address", "--upstream %s is where Envoy itself listens", f.upstream)
	}
	if f.tls.Cert != "" {
		config.TLS = &f.tls
	}
	if given == 3 {
		config.AuthzTLS = &f.authzTLS
	}
	return nil
}

// proxies reads addresses of proxies. A range that holds everybody names none.
func proxies(flag string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		prefix, err := source.ParsePrefix(strings.TrimSpace(text))
		if err == nil && prefix.Bits() == 0 {
			err = errors.New("it is every address: anybody could claim any address")
		}
		if err != nil {
			return nil, misused("name the proxies, as 10.20.30.0/28 or 10.20.30.4", "--%s %q: %w", flag, text, err)
		}
		out = append(out, prefix)
	}
	return out, nil
}

func (f *renderFlags) render(plan *envoy.Plan) (string, error) {
	var text string
	var err error
	switch f.format.value {
	case "bootstrap":
		return plan.Bootstrap()
	case "filter":
		return plan.Filter()
	case "istio":
		text, err = plan.Istio(f.mesh)
	case "envoy-gateway":
		text, err = plan.EnvoyGateway(f.mesh)
	case "contour":
		text, err = plan.Contour(f.mesh)
	}
	if err != nil {
		return "", misused("'hookauthz envoy render --help' describes the formats and flags", "--format %s: %w", f.format.value, err)
	}
	return text, nil
}

// forMesh says that a mesh's own settings take the place of ours.
func (f *renderFlags) forMesh() bool {
	return f.format.value != "bootstrap" && f.format.value != "filter"
}

// warn says what is not in the output, or is in danger.
func (f *renderFlags) warn(w io.Writer, plan *envoy.Plan) {
	for _, name := range plan.Unrouted() {
		fmt.Fprintf(w, "warning: webhook %q has no match.paths, so it has no route\n", name)
	}
	if f.proxyProtocol && len(f.proxyFrom) == 0 {
		fmt.Fprintln(w, "warning: whoever reaches the listener can claim any address in the PROXY protocol: give --proxy-from, or let nobody but the balancer reach it")
	}
	if f.others.value == "pass" {
		fmt.Fprintln(w, "warning: with --others pass, requests that no policy is for reach the application unchecked")
	}
}
