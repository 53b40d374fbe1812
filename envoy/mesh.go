package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mesh says where the parts of a mesh are.
type Mesh struct {
	// Namespace is that of the gateway, of its routes and of the application.
	Namespace string
	// Gateway is the gateway's name; for Istio also the value of the label `istio` of its pods.
	Gateway string
	// Listener is the name of the gateway's HTTPS listener (Envoy Gateway).
	Listener string
	// Certificate is the name of the Secret with the certificate that senders see (Contour).
	Certificate string
}

// errPass says why meshes have no --others pass.
var errPass = errors.New("in a mesh, routes of other webhooks and applications stand elsewhere, and what passes unchecked must too: others can only be denied")

// manifests are the documents of a mesh, with what it cannot express at their head.
type manifests struct {
	notes []string
	docs  []*node
}

// meshCheck refuses what no mesh can do.
func (p *Plan) meshCheck() error {
	switch {
	case p.config.PassOthers:
		return errPass
	case p.config.Authz.Path != "" || p.config.Upstream.Path != "":
		return errors.New("in a mesh hookauthz and the application are services: want NAME.NAMESPACE:PORT")
	}
	for _, a := range []Address{p.config.Authz, p.config.Upstream} {
		if _, ok := a.IP(); ok || a.Host == "localhost" {
			return fmt.Errorf("%s is no service: want NAME:PORT or NAME.NAMESPACE:PORT", a.Host)
		}
	}
	if p.config.ProxyProtocol || len(p.config.XFFTrusted) > 0 || p.config.TLS != nil || p.config.AuthzTLS != nil {
		return errors.New("in a mesh the gateway's own settings say who is in front of it and how connections are secured")
	}
	return nil
}

// service is the name and the namespace of a service by its host name.
func (m Mesh) service(a Address) (name, namespace string) {
	parts := strings.Split(a.Host, ".")
	if len(parts) == 1 {
		return parts[0], m.Namespace
	}
	return parts[0], parts[1]
}

// object is a mapping of keys and values in turn. A value is a node, a string, a number, a truth value, or a list of nodes.
func object(pairs ...any) *node {
	n := &node{kind: mapNode}
	for i := 0; i+1 < len(pairs); i += 2 {
		n.add(pairs[i].(string), scalarOrNode(pairs[i+1]))
	}
	return n
}

func scalarOrNode(v any) *node {
	switch v := v.(type) {
	case *node:
		return v
	case []*node:
		return &node{kind: listNode, items: v}
	case []string:
		n := &node{kind: listNode}
		for _, s := range v {
			n.items = append(n.items, text(s))
		}
		return n
	case string:
		return text(v)
	}
	return word(fmt.Sprint(v))
}

// resource is a Kubernetes object.
func resource(apiVersion, kind, name, namespace string, rest ...any) *node {
	return object(append([]any{"apiVersion", apiVersion, "kind", kind, "metadata", object("name", name, "namespace", namespace)}, rest...)...)
}

func (p *Plan) print(what string, m manifests) string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(p.head(what), "\n"))
	for _, note := range m.notes {
		comment(&b, note, 0)
	}
	for _, d := range m.docs {
		b.WriteString("---\n")
		comment(&b, d.comment, 0)
		d.comment = ""
		b.WriteString(d.print())
	}
	return b.String()
}

// goDuration is a duration as Kubernetes resources write it: 2s, 2250ms.
func goDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

var objectName = regexp.MustCompile(`[^a-z0-9.-]`)

// objectNames gives each thing a name that Kubernetes takes, no two the same.
func objectNames(wanted []string) (map[string]string, error) {
	taken := make(map[string]string)
	out := make(map[string]string)
	for _, w := range wanted {
		name := strings.Trim(objectName.ReplaceAllString(strings.ReplaceAll(w, "*", "any"), "-"), ".-")
		name = "hookauthz-" + name
		if other, ok := taken[name]; ok && other != w {
			return nil, fmt.Errorf("%q and %q are both %q as the name of a Kubernetes object: rename one", other, w, name)
		}
		taken[name], out[w] = w, name
	}
	return out, nil
}

// noAddresses refuses hosts that are addresses, which routes of Kubernetes cannot have.
func noAddresses(hosts []virtualHost) error {
	for _, h := range hosts {
		for _, d := range h.domains {
			if _, err := netip.ParseAddr(strings.Trim(d, "[]")); err == nil {
				return fmt.Errorf("the host %s is an address, which a route of Kubernetes cannot have: want a name", d)
			}
		}
	}
	return nil
}

// Istio is an AuthorizationPolicy that asks hookauthz about every request at a gateway, the routes, and what only an EnvoyFilter can
// set. The provider stands in Istio's own configuration: it is shown in a comment.
func (p *Plan) Istio(m Mesh) (string, error) {
	if err := errors.Join(p.meshCheck(), noAddresses(p.hosts)); err != nil {
		return "", err
	}
	name, namespace := m.service(p.config.Authz)
	host := name + "." + namespace + ".svc.cluster.local"
	provider := object("extensionProviders", []*node{object(
		"name", "hookauthz",
		"envoyExtAuthzGrpc", object(
			"service", host,
			"port", p.config.Authz.Port,
			"timeout", goDuration(p.checkTimeout()),
			"failOpen", false,
			"statusOnError", "503",
			"includeRequestBodyInCheck", object("maxRequestBytes", p.maxBytes, "allowPartialMessage", false, "packAsBytes", true),
		),
	)}, "pathNormalization", object("normalization", "BASE"))
	out := manifests{notes: []string{
		"Merge into Istio's meshConfig first (an AuthorizationPolicy whose provider is missing denies everything):\n\n" +
			indented(provider.print()) + "\n" +
			"The gateway is for webhooks alone: every request at it is checked, so that no rule about paths can miss one. What no policy is for is answered 404 by Envoy, or 403 by hookauthz.",
		"Istio cannot name the policy in a route: hookauthz finds it by host and path. It has no health check of hookauthz: while that is away, senders get 503.",
		"Let only the gateway reach hookauthz (STRICT mutual TLS and an AuthorizationPolicy in its namespace, as deploy/istio/hookauthz.yaml has them), and start it with --insecure-listen: the mesh secures the way.",
	}}
	out.docs = append(out.docs,
		resource("security.istio.io/v1", "AuthorizationPolicy", "hookauthz", m.Namespace, "spec", object(
			"selector", object("matchLabels", object("istio", m.Gateway)),
			"action", "CUSTOM",
			"provider", object("name", "hookauthz"),
			"rules", []*node{object()}, // every request
		)),
		resource("networking.istio.io/v1", "DestinationRule", "hookauthz", m.Namespace, "spec", object(
			"host", host,
			"trafficPolicy", object(
				"tls", object("mode", "ISTIO_MUTUAL"),
				"connectionPool", object("http", object("http2MaxRequests", p.checksAtOnce())),
			),
		)))
	routes, err := p.istioRoutes(m)
	if err != nil {
		return "", err
	}
	filter, err := p.istioFilter(m, "outbound|"+strconv.Itoa(int(p.config.Authz.Port))+"||"+host)
	if err != nil {
		return "", err
	}
	out.docs = append(append(out.docs, routes...), filter)
	return p.print("For an Istio ingress gateway.", out), nil
}

func indented(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ")
}

func (p *Plan) istioRoutes(m Mesh) ([]*node, error) {
	app, namespace := m.service(p.config.Upstream)
	var wanted []string
	for _, h := range p.hosts {
		wanted = append(wanted, h.domains[0])
	}
	names, err := objectNames(wanted)
	if err != nil {
		return nil, err
	}
	var docs []*node
	for _, h := range p.hosts {
		var routes []*node
		for _, r := range h.routes {
			uri := object("exact", r.pattern)
			if r.prefix() {
				uri = object("prefix", strings.TrimSuffix(r.pattern, "*"))
			}
			routes = append(routes, object(
				"match", []*node{object("uri", uri)},
				"route", []*node{object("destination", object("host", app+"."+namespace+".svc.cluster.local", "port", object("number", p.config.Upstream.Port)))},
				"timeout", goDuration(r.timeout),
				"retries", object("attempts", 0),
			))
		}
		d := resource("networking.istio.io/v1", "VirtualService", names[h.domains[0]], m.Namespace, "spec", object(
			"hosts", h.domains, "gateways", []string{m.Gateway}, "http", routes,
		))
		d.comment = "No retries: Istio's own would send a delivery to the application twice."
		docs = append(docs, d)
	}
	return docs, nil
}

// EnvoyGateway is the objects of Envoy Gateway: a route and a security policy for each webhook.
func (p *Plan) EnvoyGateway(m Mesh) (string, error) {
	if err := errors.Join(p.meshCheck(), noAddresses(p.hosts)); err != nil {
		return "", err
	}
	var wanted []string
	for _, e := range p.routed() {
		wanted = append(wanted, e.Name)
	}
	names, err := objectNames(wanted)
	if err != nil {
		return "", err
	}
	name, namespace := m.service(p.config.Authz)
	app, appNamespace := m.service(p.config.Upstream)
	out := manifests{notes: []string{
		"Needs Envoy Gateway 1.9 with `extensionApis: {enableEnvoyPatchPolicy: true}`. Envoy Gateway hands bodies over as text, which would let a signed body be altered unseen; the EnvoyPatchPolicy at the end changes that. Where it is not in force, hookauthz answers 503 (body_not_raw) to every delivery.",
		"The service of hookauthz must say that it speaks HTTP/2: appProtocol kubernetes.io/h2c. Routes of other applications at this gateway are not checked, and none may lead to this application.",
		"Envoy Gateway cannot limit what hookauthz changes in a request, set x-hookauthz-client-ip (it is removed: a policy that reads it denies), or keep bad signatures out of the application's statistics.",
	}}
	if names := p.awaiting(); names != "" {
		out.notes = append(out.notes, "Confirm outcome: "+names+". These need a gRPC access log to hookauthz besides (EnvoyProxy, telemetry.accessLog, type ALS): without it a reservation is released when its time ends, and the delivery can be repeated.")
	}
	for _, e := range p.routed() {
		out.docs = append(out.docs, p.httpRoute(m, names[e.Name], e.Name, app, appNamespace), resource("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", names[e.Name], m.Namespace, "spec", object(
			"targetRefs", []*node{object("group", "gateway.networking.k8s.io", "kind", "HTTPRoute", "name", names[e.Name])},
			"extAuth", object(
				"grpc", object("backendRefs", []*node{object("name", name, "namespace", namespace, "port", p.config.Authz.Port)}),
				"bodyToExtAuth", object("maxRequestBytes", p.maxBytes),
				"timeout", goDuration(p.checkTimeout()),
				"failOpen", false,
				"recomputeRoute", false,
				"statusOnError", 503,
				"contextExtensions", []*node{object("name", endpointKey, "type", "Value", "value", e.Name)},
			),
		)))
	}
	for _, to := range []struct{ kind, namespace, service string }{{"SecurityPolicy", namespace, name}, {"HTTPRoute", appNamespace, app}} {
		group := "gateway.envoyproxy.io"
		if to.kind == "HTTPRoute" {
			group = "gateway.networking.k8s.io"
		}
		if to.namespace != m.Namespace {
			out.docs = append(out.docs, resource("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "hookauthz-"+strings.ToLower(to.kind), to.namespace, "spec", object(
				"from", []*node{object("group", group, "kind", to.kind, "namespace", m.Namespace)},
				"to", []*node{object("group", "", "kind", "Service", "name", to.service)},
			)))
		}
	}
	out.docs = append(out.docs, p.clientTraffic(m), p.rawBodies(m, names))
	return p.print("For Envoy Gateway.", out), nil
}

// awaiting names the endpoints that await the application's answer.
func (p *Plan) awaiting() string {
	var names []string
	for _, e := range p.config.Endpoints {
		if e.Reservation > 0 {
			names = append(names, e.Name)
		}
	}
	return strings.Join(names, ", ")
}

// routed are the names of the endpoints that have routes, with their hosts and paths.
func (p *Plan) routed() []endpointRoutes {
	var out []endpointRoutes
	for _, e := range p.config.Endpoints {
		if len(e.Paths) == 0 {
			continue
		}
		r := endpointRoutes{Name: e.Name, hosts: e.Hosts, paths: e.Paths, timeout: upstreamTimeout}
		if e.Reservation > 0 {
			r.timeout = min(r.timeout, e.Reservation)
		}
		out = append(out, r)
	}
	return out
}

type endpointRoutes struct {
	Name         string
	hosts, paths []string
	timeout      time.Duration
}

func (p *Plan) httpRoute(m Mesh, name, endpoint, app, namespace string) *node {
	all := p.routed()
	e := all[slices.IndexFunc(all, func(e endpointRoutes) bool { return e.Name == endpoint })]
	var matches []*node
	for _, path := range e.paths {
		kind := "Exact"
		if strings.HasSuffix(path, "/*") {
			kind, path = "PathPrefix", strings.TrimSuffix(path, "*")
		}
		matches = append(matches, object("path", object("type", kind, "value", path)))
	}
	spec := object("parentRefs", []*node{object("name", m.Gateway, "sectionName", m.Listener)})
	if len(e.hosts) > 0 {
		spec.add("hostnames", scalarOrNode(e.hosts))
	}
	spec.add("rules", scalarOrNode([]*node{object(
		"matches", matches,
		"backendRefs", []*node{object("name", app, "namespace", namespace, "port", p.config.Upstream.Port)},
		"timeouts", object("request", goDuration(e.timeout)),
	)}))
	return resource("gateway.networking.k8s.io/v1", "HTTPRoute", name, m.Namespace, "spec", spec)
}

func (p *Plan) clientTraffic(m Mesh) *node {
	underscores, requestID := "RejectRequest", "Generate"
	if p.underscores {
		underscores = "Allow"
	}
	if p.keepRequestID {
		requestID = "PreserveOrGenerate"
	}
	d := resource("gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy", "hookauthz", m.Namespace, "spec", object(
		"targetRefs", []*node{object("group", "gateway.networking.k8s.io", "kind", "Gateway", "name", m.Gateway, "sectionName", m.Listener)},
		"path", object("escapedSlashesAction", "RejectRequest", "disableMergeSlashes", true),
		"headers", object("withUnderscoresAction", underscores, "requestID", requestID, "earlyRequestHeaders", object("remove", []string{clientIPHeader})),
		"timeout", object("http", object("requestReceivedTimeout", "30s", "streamIdleTimeout", "30s")),
		"tls", object("minVersion", "1.2", "ciphers", suites),
		"connection", object("bufferLimit", "32Ki"),
	))
	d.comment = "Envoy, hookauthz and the application agree on paths and on the names of headers."
	return d
}

// rawBodies has bodies handed over byte for byte, and repeated headers apart.
func (p *Plan) rawBodies(m Mesh, names map[string]string) *node {
	var patches []*node
	for _, e := range p.routed() {
		filter := "..http_filters[?(@.name=='" + filterName + "/securitypolicy/" + m.Namespace + "/" + names[e.Name] + "')].typed_config"
		for _, set := range []struct{ at, field string }{{filter + ".with_request_body", "pack_as_bytes"}, {filter, "encode_raw_headers"}} {
			patches = append(patches, object(
				"type", "type.googleapis.com/envoy.config.listener.v3.Listener",
				"name", m.Namespace+"/"+m.Gateway+"/"+m.Listener,
				"operation", object("op", "add", "jsonPath", set.at, "path", set.field, "value", true),
			))
		}
	}
	return resource("gateway.envoyproxy.io/v1alpha1", "EnvoyPatchPolicy", "hookauthz-raw", m.Namespace, "spec", object(
		"targetRef", object("group", "gateway.networking.k8s.io", "kind", "Gateway", "name", m.Gateway),
		"type", "JSONPatch",
		"jsonPatches", patches,
	))
}

// Contour is an ExtensionService and an HTTPProxy for each host.
func (p *Plan) Contour(m Mesh) (string, error) {
	err := errors.Join(p.meshCheck(), noAddresses(p.hosts))
	var wanted []string
	for _, h := range p.hosts {
		if slices.Contains(h.domains, anyHost) {
			err = errors.Join(err, errors.New("an HTTPProxy is for a host: want match.hosts in every policy"))
		}
		wanted = append(wanted, h.domains...)
	}
	if err != nil {
		return "", err
	}
	names, err := objectNames(wanted)
	if err != nil {
		return "", err
	}
	name, namespace := m.service(p.config.Authz)
	app, appNamespace := m.service(p.config.Upstream)
	if appNamespace != m.Namespace {
		return "", fmt.Errorf("an HTTPProxy leads to services of its own namespace %q: want --upstream in it, not in %q", m.Namespace, appNamespace)
	}
	out := manifests{notes: []string{
		"Contour cannot hand repeated headers over apart (hookauthz refuses a signature that is joined), answer 503 while hookauthz is away (senders get 403, and many drop a delivery on it), limit what hookauthz changes, or set x-hookauthz-client-ip.",
		"Contour always clears the route cache after a Check: let no route of these hosts match on a header that begins with x-hookauthz-. In its configuration file write disableMergeSlashes: true; headers with underscores cannot be refused before Check.",
	}}
	if names := p.awaiting(); names != "" {
		out.notes = append(out.notes, "Confirm outcome: "+names+". Contour has no gRPC access log: a reservation is released when its time ends, and the delivery can be repeated. Leave `confirm: outcome` out there.")
	}
	for _, e := range p.config.Endpoints {
		if e.ClientHeader == clientIPHeader {
			return "", fmt.Errorf("webhook %q: its clientAddress is read from %s, which Contour cannot have Envoy overwrite: anybody could claim any address", e.Name, clientIPHeader)
		}
	}
	protocol := object("protocol", "h2c")
	protocol.fields = append(protocol.fields, object("services", []*node{object("name", name, "port", p.config.Authz.Port)},
		"timeoutPolicy", object("response", goDuration(p.checkTimeout())),
		"circuitBreakerPolicy", object("maxRequests", p.checksAtOnce(), "maxPendingRequests", p.checksAtOnce())).fields...)
	service := resource("projectcontour.io/v1alpha1", "ExtensionService", "hookauthz", namespace, "spec", protocol)
	service.comment = "Plain HTTP/2: let a NetworkPolicy admit nobody but Envoy, or have hookauthz show a certificate and write protocol: h2 with validation."
	out.docs = append(out.docs, service)
	for _, h := range p.hosts {
		for _, domain := range h.domains {
			var routes []*node
			for _, r := range h.routes {
				condition := object("exact", r.pattern)
				if r.prefix() {
					condition = object("prefix", strings.TrimSuffix(r.pattern, "*"))
				}
				routes = append(routes, object(
					"conditions", []*node{condition},
					"services", []*node{object("name", app, "port", p.config.Upstream.Port)},
					"timeoutPolicy", object("response", goDuration(r.timeout)),
					"authPolicy", object("context", object(endpointKey, r.endpoint)),
				))
			}
			out.docs = append(out.docs, resource("projectcontour.io/v1", "HTTPProxy", names[domain], m.Namespace, "spec", object(
				"virtualhost", object(
					"fqdn", domain,
					"tls", object("secretName", m.Certificate, "minimumProtocolVersion", "1.2"),
					"authorization", object(
						"extensionRef", object("name", "hookauthz", "namespace", namespace),
						"responseTimeout", goDuration(p.checkTimeout()),
						"failOpen", false,
						"withRequestBody", object("maxRequestBytes", p.maxBytes, "allowPartialMessage", false, "packAsBytes", true),
					),
				),
				"routes", routes,
			)))
		}
	}
	return p.print("For Contour.", out), nil
}
